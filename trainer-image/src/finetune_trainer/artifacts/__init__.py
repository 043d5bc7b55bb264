"""What a run leaves: the result, its model card, the events and the report."""
