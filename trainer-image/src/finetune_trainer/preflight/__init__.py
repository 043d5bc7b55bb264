"""Preflight: checks everything that a run needs before accelerators are requested."""
