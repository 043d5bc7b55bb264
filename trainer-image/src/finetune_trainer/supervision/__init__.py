"""How a process of the trainer is watched, and what is told of its end."""
