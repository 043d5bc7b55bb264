"""The FineTuneSweep kind: a search whose trials are FineTuneJobs."""
