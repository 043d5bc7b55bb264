"""OpenAI's fine-tuning API for one namespace: its jobs are FineTuneJobs, its files objects in the class's storage."""
