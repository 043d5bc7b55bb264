"""The files of a dataset, their lines, and the examples in them."""
