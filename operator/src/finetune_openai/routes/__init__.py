"""The handlers of requests: one module for each path of the API."""
