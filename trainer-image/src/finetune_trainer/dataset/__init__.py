"""Builds a revision of a Dataset: reads, cleans and splits its examples, and commits them."""
