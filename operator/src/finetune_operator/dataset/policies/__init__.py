"""One file per policy, named after the field or the phase that it decides; plan.py has them in order."""
