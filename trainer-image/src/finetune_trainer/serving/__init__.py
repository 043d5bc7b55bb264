"""Serving a model over the OpenAI routes."""
