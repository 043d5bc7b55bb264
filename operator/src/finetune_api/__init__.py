"""The contracts of finetune-operator: the four kinds, what the operator hands to its Pods, and what they answer.

Pydantic models and pure functions only. Both the operator and the trainer import this package; it imports neither.
"""
