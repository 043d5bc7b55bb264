"""Checkpoints: the state of a training, saved in the background, committed, and resumed from."""
