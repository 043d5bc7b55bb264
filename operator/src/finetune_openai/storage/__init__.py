"""The class's storage: files and uploads of the API as objects in S3."""
