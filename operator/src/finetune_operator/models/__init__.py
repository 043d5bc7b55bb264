"""What `model` means in a spec: a URI, the result of a FineTuneJob, the best trial of a FineTuneSweep."""
