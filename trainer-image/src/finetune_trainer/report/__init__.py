"""What a run reports: events, progress, metrics, and the report beside its result."""
