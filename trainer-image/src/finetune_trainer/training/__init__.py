"""Training: the gang of processes, the model that is trained, and what happens at its steps."""
