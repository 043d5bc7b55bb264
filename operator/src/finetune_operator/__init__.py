"""The operator: Kopf watches -> one work queue -> observe -> plan (pure) -> apply -> status."""
