"""How often a canary is right."""
