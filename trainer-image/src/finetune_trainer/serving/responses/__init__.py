"""Responses in OpenAI's objects."""
