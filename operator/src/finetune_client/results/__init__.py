"""What a run leaves behind: curves, reports, files in the storage."""
