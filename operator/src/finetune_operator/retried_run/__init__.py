"""A run that is one Job, tried again until it succeeds or its retryLimit is reached: of a Dataset, of an Evaluation."""
