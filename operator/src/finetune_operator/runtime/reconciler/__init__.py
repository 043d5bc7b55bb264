"""One reconciliation, and everything that it writes to the API server."""
