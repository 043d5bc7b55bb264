"""A fine-tuning job in OpenAI's words and as a FineTuneJob: request, object, response. Pure."""
