"""A process of the trainer: its environment, its log, and how it ends."""
