"""Dataset: examples that are read, cleaned and split once, and committed as an immutable revision."""
