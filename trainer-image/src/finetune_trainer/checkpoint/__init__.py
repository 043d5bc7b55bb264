"""Checkpoints: what a training's state is, how it is saved beside the training, and resumed from."""
