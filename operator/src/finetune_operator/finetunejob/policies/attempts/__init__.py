"""The policies of preflight and of attempts: how they run, and how they end."""
