"""Training a run, from its configuration to the committed result."""
