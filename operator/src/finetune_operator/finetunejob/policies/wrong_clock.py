"""Corrects times that a wrong clock wrote, since deadline, TTL and backoff are computed from them.

Only times that contradict the API server's own are corrected. An operator whose clock is behind those corrects nothing:
to it, every time from a correct clock would seem to be in the future.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.attempt_state import FINISHED, JobPlan
from finetune_operator.finetunejob.observed import ObservedFineTuneJob

SKEW = timedelta(minutes=1)
"""The maximum difference between the clocks of a cluster."""


def correct_times(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Correct times in the future, and times before the creationTimestamp of the object that they belong to."""
    if clock_is_behind(observed, now):
        return plan
    now, status = whole_seconds(now), plan.status
    found = _with_end(observed, status, now) if status.phase in FINISHED else _with_start(observed, status, now)
    update: dict[str, object] = {}
    if found.attempt is not None:
        times = {"start_time": _at_most(found.attempt.start_time, now)}
        update["attempt"] = found.attempt.model_copy(update=times)
    if found.progress is not None:
        times = {"last_updated_time": _at_most(found.progress.last_updated_time, now)}
        update["progress"] = found.progress.model_copy(update=times)
    corrected = found.model_copy(update=update)
    return plan if corrected == status else replace(plan, status=corrected)


def clock_is_behind(observed: ObservedFineTuneJob, now: datetime) -> bool:
    """Whether the API server's clock has recorded a time later than now.

    That includes the newest write of the status: no correct time in the status can be later than that write.
    """
    moments = [_newest_creation(observed), observed.status_written]
    return any(moment is not None and moment > now + SKEW for moment in moments)


def no_earlier_than_created(observed: ObservedFineTuneJob, now: datetime) -> datetime:
    """Now, or the newest creationTimestamp if the operator's clock is behind it."""
    return max(now, _newest_creation(observed) or now)


def _with_start(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    """Bound the start time by the object's creation, and the suspended time by the time since the start."""
    start, seconds = status.start_time, max(0, status.suspended_seconds)
    if start is not None:
        start = _at_most(start, now)
        if observed.created is not None and start < observed.created - SKEW:
            ends = (run.completion_time for run in status.history[-1:])
            start = max([observed.created, *(end for end in ends if end is not None and end <= now)])
        lasted = max(timedelta(0), now - start)
        seconds = round(lasted.total_seconds()) if seconds > (lasted + SKEW).total_seconds() else seconds
    return status.model_copy(update={"start_time": start, "suspended_seconds": seconds})


def _with_end(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    """Replace an impossible completion time by now, so that the Pods are kept for the whole TTL."""
    end, begins = status.completion_time, [observed.created, status.start_time]
    is_early = end is not None and any(begin is not None and end < begin - SKEW for begin in begins)
    is_odd = is_early or (end is not None and end > now + SKEW)
    return status.model_copy(update={"completion_time": now}) if is_odd else status


def _newest_creation(observed: ObservedFineTuneJob) -> datetime | None:
    """The newest creationTimestamp of the object and its Jobs, which only the API server writes."""
    made = [observed.created, *(job.created for job in observed.jobs)]
    return max((moment for moment in made if moment is not None), default=None)


def _at_most(moment: datetime, now: datetime) -> datetime:
    return now if moment > now + SKEW else moment
