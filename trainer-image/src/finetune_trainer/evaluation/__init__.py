"""Evaluation: prompts, generation, graders, and the statistics of scores."""
