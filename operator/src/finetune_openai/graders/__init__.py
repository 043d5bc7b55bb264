"""Graders that a client tries on one output."""
