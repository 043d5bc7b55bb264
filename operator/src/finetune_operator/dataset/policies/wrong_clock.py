"""Corrects times of a dataset that a wrong clock wrote (core/wrong_clock.py)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_operator.core.wrong_clock import with_possible_times
from finetune_operator.dataset.observed import DatasetPlan, ObservedDataset


def correct_times(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Correct times that a wrong clock wrote."""
    status = with_possible_times(plan.status, observed.server_times, now)
    return plan if status == plan.status else replace(plan, status=status)
