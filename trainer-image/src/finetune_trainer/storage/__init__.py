"""The storage of runs: an S3 bucket or a local folder, and commits on it that are whole or absent."""
