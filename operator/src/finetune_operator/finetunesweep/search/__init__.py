"""Mode Search: which values are tried, which trials are pruned, and which one is the best."""
