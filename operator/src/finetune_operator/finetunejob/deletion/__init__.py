"""A FineTuneJob that is being deleted, where its class says reclaimPolicy: Delete."""
