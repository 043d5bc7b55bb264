"""Reinforcement fine-tuning: the model learns from the scores that graders give to its own completions."""
