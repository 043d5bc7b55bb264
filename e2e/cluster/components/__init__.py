"""What a Kubernetes of processes consists of."""
