"""Benchmarks by lm-eval, from a mirror of their datasets: no hub is asked, and no code but lm-eval's own is run."""
