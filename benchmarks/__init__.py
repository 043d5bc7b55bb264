"""Measurements that anyone can repeat with one command; each package is one of them."""
