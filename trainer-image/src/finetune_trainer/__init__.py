"""What runs in the Pods: preflight, training, evaluation and the fetching of models."""
