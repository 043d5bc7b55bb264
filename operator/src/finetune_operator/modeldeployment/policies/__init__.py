"""What decides which model is served, how it is kept up, and how far it has come."""
