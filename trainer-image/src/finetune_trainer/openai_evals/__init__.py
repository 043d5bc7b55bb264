"""OpenAI's evals as Evaluations: what their API returned, translated on a user's machine."""
