"""Outputs of models to the prompts of a dataset: asked of an API, or generated here and kept. Evaluations and Datasets
need both."""
