"""Evaluation: held-out prompts, generation, grading, and statistics of scores."""
