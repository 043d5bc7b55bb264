"""Images of examples: fetched, checked, and kept on this node's disk."""
