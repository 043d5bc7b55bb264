"""Corrects times of a run that a wrong clock wrote (core/wrong_clock.py)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_operator.core.plan import Plan
from finetune_operator.core.wrong_clock import with_possible_times
from finetune_operator.retried_run.run import ObservedT, Status


def correct_times(observed: ObservedT, plan: Plan[Status], now: datetime) -> Plan[Status]:
    """Correct times that a wrong clock wrote."""
    status = with_possible_times(plan.status, observed.server_times, now)
    return plan if status == plan.status else replace(plan, status=status)
