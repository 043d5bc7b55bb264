"""Encodes examples as text by the model's chat template, and as tokens with labels."""
