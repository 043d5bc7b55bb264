"""What is told of a run: events, progress, metrics, and the report beside its result."""
