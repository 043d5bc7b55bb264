"""Times of the status that can't be right: a wrong clock wrote them, and deadline, TTL and backoff would go by them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobPlan

SKEW = timedelta(minutes=1)
"""The clocks of a cluster differ by less."""


def correct_times(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Correct them.

    No moment of a run lies in the future, or before its object was made, of which the API server's clock tells, or
    before the run before it ended.
    """
    now = whole_seconds(now)
    status = plan.status
    start = _plausible(status.start_time, _earliest(observed, status, now), now)
    suspended = _plausible(status.suspend_time, start, now)
    lasted = max(0, round((now - start).total_seconds())) if start is not None else status.suspended_seconds
    update: dict[str, object] = {
        "start_time": start,
        "suspend_time": suspended,
        "suspended_seconds": min(max(0, status.suspended_seconds), lasted),
        "completion_time": _completion(status.completion_time, start, now),
    }
    if status.attempt is not None:
        times = {"start_time": _plausible(status.attempt.start_time, None, now)}
        update["attempt"] = status.attempt.model_copy(update=times)
    if status.progress is not None:
        times = {"last_updated_time": _plausible(status.progress.last_updated_time, None, now)}
        update["progress"] = status.progress.model_copy(update=times)
    corrected = status.model_copy(update=update)
    return plan if corrected == status else replace(plan, status=corrected)


def _earliest(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> datetime | None:
    """When the run can have begun at the earliest. What is later than now tells of this operator's own clock."""
    moments = [observed.created, *(run.completion_time for run in status.history[-1:])]
    return max((moment for moment in moments if moment is not None and moment <= now), default=None)


def _plausible(moment: datetime | None, earliest: datetime | None, now: datetime) -> datetime | None:
    if moment is None:
        return None
    if moment > now + SKEW:
        return now
    return earliest if earliest is not None and moment < earliest - SKEW else moment


def _completion(end: datetime | None, start: datetime | None, now: datetime) -> datetime | None:
    """A run whose end can't have been then has ended now: its Pods are kept for the whole TTL."""
    is_odd = end is not None and (end > now + SKEW or (start is not None and end < start - SKEW))
    return now if is_odd else end
