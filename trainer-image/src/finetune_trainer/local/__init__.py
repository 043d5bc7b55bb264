"""Training on a machine without Kubernetes."""
