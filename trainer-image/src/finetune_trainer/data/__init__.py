"""Datasets: read, checked, chosen from, and made into tokens."""
