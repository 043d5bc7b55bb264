"""FineTuneClass: whether it can be used, and what it allows."""
