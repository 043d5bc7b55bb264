"""activeDeadlineSeconds: how long a run may take, but for the time that its clock stood still."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import LONGEST_SECONDS
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.core.plan import earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_records import FINISHED, running_attempt
from finetune_operator.finetunejob.completion import failed
from finetune_operator.finetunejob.concern import JobPlan, Step
from finetune_operator.finetunejob.observed import ObservedFineTuneJob


def deadline(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """End the run when its time is over."""
    ends = _deadline_of(observed, status)
    if ends is None or now < ends:
        return status
    kept = f" Its checkpoints are kept in {status.storage_uri}." if status.storage_uri else ""
    message = (
        f"The run did not end within activeDeadlineSeconds.{kept} Raise activeDeadlineSeconds and change runId to run "
        "again."
    )
    return failed(observed, status, stalled(Reason.DEADLINE_EXCEEDED, message), now)


def awake_at_deadline(observed: ObservedFineTuneJob, step: JobPlan) -> JobPlan:
    """The same plan, looked at again when the run's time is over, if it runs then."""
    status = step.status
    if status.phase in FINISHED or status.run_id != observed.spec.run_id:
        return step
    return replace(step, requeue_at=earliest([step.requeue_at, _deadline_of(observed, status)]))


def _deadline_of(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> datetime | None:
    """When the run's time is over; None where nobody limits it, or its clock stands still."""
    seconds = deadline_seconds(observed, status)
    if seconds is None or status.start_time is None or status.suspend_time is not None:
        return None
    return status.start_time + timedelta(seconds=min(max(0, seconds + status.suspended_seconds), 2 * LONGEST_SECONDS))


def deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """The spec's deadline as it is now, and at most the class's."""
    limits = [observed.spec.active_deadline_seconds, class_deadline_seconds(observed, status)]
    return min((seconds for seconds in limits if seconds is not None), default=None)


def class_deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """What the class allows; a running attempt keeps what it allowed when the attempt was started."""
    attempt = running_attempt(status)
    if attempt is not None:
        return attempt.class_deadline_seconds
    platform = observed.platform
    return platform.spec.limits.active_deadline_seconds if isinstance(platform, ResolvedClass) else None
