"""OpenAI's graders, translated into those of an Evaluation. Pure."""
