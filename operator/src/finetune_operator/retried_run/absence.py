"""Which plans of a retried run are made from a live look at its Jobs and Pods."""

from __future__ import annotations

from typing import Any

from finetune_api.lifecycle import RetriedRunStatus
from finetune_operator.core.plan import Plan
from finetune_operator.pods import leftovers
from finetune_operator.retried_run.observed import ObservedRun


def rests_on_absence(observed: ObservedRun[Any, RetriedRunStatus], plan: Plan[Any]) -> bool:
    """Whether the plan is right only if nothing runs of which no watch has told."""
    before = observed.status
    is_first = before.start_time is None and before.try_number is None and before.job_name is None
    return leftovers.rests_on_absence(before, observed.jobs, plan, is_first=is_first)
