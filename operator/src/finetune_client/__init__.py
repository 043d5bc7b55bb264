"""A Python client of finetune-operator, for notebooks and scripts."""
