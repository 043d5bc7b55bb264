"""Supervision of the trainer's processes, and the diagnosis of how they end."""
