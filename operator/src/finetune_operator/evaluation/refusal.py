"""Graders, gates and templates that can't work, found before anything runs."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec
from finetune_grading.evaluation_check import grading_problem
from finetune_operator.core.conditions import Readiness, stalled


def grading_refusal(spec: EvaluationSpec) -> Readiness | None:
    """Of the first one; None if all are valid."""
    problem = grading_problem(spec)
    return None if problem is None else stalled(Reason.INVALID_SPEC, problem)
