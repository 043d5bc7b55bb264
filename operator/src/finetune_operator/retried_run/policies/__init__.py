"""One file per policy, named after the field or the phase that it decides; plan.py of each kind has them in order."""
