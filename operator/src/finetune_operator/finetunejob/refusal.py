"""Rewards that can't work, found before anything runs."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RFT
from finetune_grading.rewards import reward_problem
from finetune_operator.core.conditions import Readiness, stalled


def reward_refusal(spec: RFT) -> Readiness | None:
    """Why the graders can't reward anything; None if they can."""
    problem = reward_problem(spec)
    return None if problem is None else stalled(Reason.INVALID_SPEC, problem)
