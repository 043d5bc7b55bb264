"""What the end-to-end test of every grader puts into the cluster."""
