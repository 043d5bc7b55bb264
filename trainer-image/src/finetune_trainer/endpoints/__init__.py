"""The models of the class, behind OpenAI-compatible APIs: requests, their limits, and a cache of answers."""
