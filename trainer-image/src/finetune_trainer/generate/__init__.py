"""Generation with a model, and the tool calls in what it generates."""
