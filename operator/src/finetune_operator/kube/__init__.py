"""The edge to the Kubernetes API."""
