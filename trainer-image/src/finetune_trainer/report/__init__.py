"""What a run reports: events, progress, metrics, and the report of its result."""
