"""Whether spec.split.by can be rendered."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetSpec
from finetune_grading.evaluation_check import grouping_problem
from finetune_operator.core.conditions import Readiness, stalled


def grouping_refusal(spec: DatasetSpec) -> Readiness | None:
    """Why examples can't be kept together by this template."""
    problem = grouping_problem(spec)
    return None if problem is None else stalled(Reason.INVALID_SPEC, f"{problem} Correct it, and change runId.")
