"""Evaluation: scores of tuned models against their baseline, and gates."""

from finetune_operator.evaluation import observe as observe
from finetune_operator.evaluation import plan as plan
