"""Progress reports from training Pods: the HTTPS endpoint, who may report, and what is kept of them."""
