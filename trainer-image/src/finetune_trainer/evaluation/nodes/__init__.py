"""Several Pods that evaluate together."""
