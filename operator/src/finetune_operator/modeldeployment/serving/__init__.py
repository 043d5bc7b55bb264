"""What serves a model, kept up at every look: the objects, what others changed in them, the rollout, its history."""
