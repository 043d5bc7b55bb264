"""The policies of a run as a whole: its begin, its end, and what stops it."""
