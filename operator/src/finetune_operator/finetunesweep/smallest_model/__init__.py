"""Mode SmallestModel: its candidates, the one that is chosen, and what it saves."""
