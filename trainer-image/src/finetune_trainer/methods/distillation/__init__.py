"""Distillation: a model learns on its own completions from a teacher."""
