"""What decides about a sweep: a file for each field or phase."""
