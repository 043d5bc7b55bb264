"""spec.activeDeadlineSeconds of a run: its clock is stopped while nothing can run through no fault of the run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from finetune_api.base import LONGEST_SECONDS, whole_seconds
from finetune_api.lifecycle import RunStatus
from finetune_api.pod_contracts.progress import human_duration

MARGIN_SECONDS = 3600
Status = TypeVar("Status", bound=RunStatus)


def with_suspended_time(status: Status, now: datetime, *, is_stopped: bool, is_reliable: bool = True) -> Status:
    """The status with the time since when the clock is stopped, or with how long it was.

    `is_reliable`: whether `now` can be right; a time that ends is counted only then.
    """
    since = status.suspend_time
    if is_stopped == (since is not None):
        return status
    if since is None:
        return status.model_copy(update={"suspend_time": whole_seconds(now)})
    if not is_reliable:
        return status
    since = max(since, status.start_time or since)
    seconds = status.suspended_seconds + max(0, round((now - since).total_seconds()))
    return status.model_copy(update={"suspend_time": None, "suspended_seconds": seconds})


def shorter(*limits: int | None) -> int | None:
    """The shortest limit that is set."""
    return min((seconds for seconds in limits if seconds is not None), default=None)


def deadline_of(status: RunStatus, seconds: int | None) -> datetime | None:
    """When the run has to be over; None without a limit, before it has begun, and while its clock is stopped."""
    if seconds is None or status.start_time is None or status.suspend_time is not None:
        return None
    return status.start_time + timedelta(seconds=min(max(0, seconds + status.suspended_seconds), 2 * LONGEST_SECONDS))


def expiry(status: RunStatus, ttl_seconds: int | None, *, has_jobs: bool) -> datetime | None:
    """spec.ttlSecondsAfterFinished: when the Jobs of a run that is over go; None if never, or if they are gone."""
    if ttl_seconds is None or status.completion_time is None or not has_jobs:
        return None
    return status.completion_time + timedelta(seconds=ttl_seconds)


def try_seconds(shortest: int, of_spec: int | None, of_class: int | None) -> int:
    """After how long Kubernetes itself ends a try: later than the operator does, which counts the whole run.

    The class's deadline counts, too, since the spec's may be raised up to it while the try runs.
    """
    return max([shortest, *(seconds + MARGIN_SECONDS for seconds in (of_spec, of_class) if seconds is not None)])


def limit_of(of_spec: int | None, of_class: int | None) -> str:
    """The deadline of a run as text, and whose it is."""
    seconds = shorter(of_spec, of_class)
    whose = "spec.activeDeadlineSeconds" if seconds == of_spec else "limits.activeDeadlineSeconds of the FineTuneClass"
    return f"{human_duration(seconds or 0)} ({whose})"
