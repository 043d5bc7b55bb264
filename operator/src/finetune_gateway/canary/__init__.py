"""A canary, as the gateway sees it: which requests it gets, what is counted of them, and how the operator is asked."""
