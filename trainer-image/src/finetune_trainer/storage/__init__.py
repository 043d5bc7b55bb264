"""The storage of runs: S3 or local folders, and atomic commits on it."""
