"""The S3-compatible storage: one edge, with its retries, transfers and credentials."""
