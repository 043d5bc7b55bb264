"""Whose controllers are measured: ours, and the rival's."""
