"""The local cluster, the demo, and the end-to-end tests with real Pods."""
