"""Requests to the storage: their bodies, and range requests."""
