"""What is harmful: in datasets, and in what a model answers."""
