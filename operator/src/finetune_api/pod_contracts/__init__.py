"""The contracts between the operator and the Pods: what they are given, and what they report."""
