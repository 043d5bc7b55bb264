"""The contracts of finetune-operator: the kinds, the run configuration of Pods, and their reports.

Pydantic models and pure functions only. Both the operator and the trainer import this package; it imports neither.
"""
