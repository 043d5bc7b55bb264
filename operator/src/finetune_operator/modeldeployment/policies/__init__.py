"""What the next revision waits for: one file per field, in the order of plan.py. The current one is kept serving."""
