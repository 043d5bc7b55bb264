"""The quickstart on a real cluster: fine-tune, evaluate, serve."""
