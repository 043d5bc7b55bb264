"""The requests that are sent to a storage: their bodies, and the ranges that they ask for."""
