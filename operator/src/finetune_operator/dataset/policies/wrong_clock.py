"""Corrects times of a dataset that a wrong clock wrote (core/wrong_clock.py)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_operator.core.wrong_clock import with_possible_end, with_possible_start
from finetune_operator.dataset.observed import DatasetPlan, ObservedDataset


def correct_times(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Correct times that a wrong clock wrote."""
    times, now = observed.server_times, whole_seconds(now)
    if times.proves_clock_slow(now):
        return plan
    correct = with_possible_start if plan.status.completion_time is None else with_possible_end
    status = correct(plan.status, times, now)
    return plan if status == plan.status else replace(plan, status=status)
