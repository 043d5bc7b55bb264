"""Evaluation: scores of tuned models against their baseline, and gates."""
