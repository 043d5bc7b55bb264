"""The plan and the decisions of an Evaluation."""

from __future__ import annotations

from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.plan import Decision, Plan

EvaluationPlan = Plan[EvaluationStatus]
EvaluationDecision = Decision[EvaluationStatus]
