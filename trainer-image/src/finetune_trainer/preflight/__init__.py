"""Preflight: everything that a run needs, tried before a GPU is asked for."""
