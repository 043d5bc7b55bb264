"""What `model` means in a spec: a URI, or the result of a FineTuneJob."""
