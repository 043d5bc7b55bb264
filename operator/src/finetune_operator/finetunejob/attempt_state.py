"""The state of a run according to its status: whether preflight and the newest attempt are pending, running or ended.

An end is always written into the status before the Job is deleted, so that after a crash a Job that the operator
deleted is not mistaken for one that was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import (
    AttemptOutcome,
    AttemptState,
    AttemptStatus,
    CheckpointStatus,
    CorruptCheckpoint,
    EndedAttempt,
    FineTuneJobStatus,
    Phase,
    PreflightStatus,
)
from finetune_api.sources import is_below
from finetune_operator.core.plan import Decision, Plan

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed", "Cancelled"})
ENDED_ATTEMPTS_KEPT = 10
CHECKPOINTS_SHOWN = 100
CORRUPT_CHECKPOINTS_SHOWN = 20
JobPlan = Plan[FineTuneJobStatus]
JobDecision = Decision[FineTuneJobStatus]
_REASON_OF_ATTEMPT: Mapping[AttemptState | None, Reason] = {
    None: Reason.QUEUED,
    "Pending": Reason.QUEUED,
    "Running": Reason.TRAINING,
    "Suspended": Reason.QUEUED,
    "Superseded": Reason.QUEUED,
    "Cancelled": Reason.QUEUED,
    "Replaced": Reason.QUEUED,
    "Failed": Reason.RETRYING,
    "Disrupted": Reason.RETRYING,
    "Succeeded": Reason.RETRYING,  # Only without a result: otherwise the run is over.
}


def attempt_state(status: FineTuneJobStatus) -> AttemptState | None:
    """The state of the newest attempt; None before the first one."""
    attempt, end = status.attempt, _record(status)
    if attempt is None:
        return None
    if end is not None:
        return end.outcome  # Older versions write only this, and no state.
    if attempt.state is not None:
        return attempt.state
    if attempt.next_time is not None:
        return "Disrupted"
    return "Running" if status.phase == "Training" else "Pending"


def running_attempt(status: FineTuneJobStatus) -> AttemptStatus | None:
    """The attempt that is pending or running."""
    is_running = status.phase not in FINISHED and attempt_state(status) in ("Pending", "Running")
    return status.attempt if is_running else None


def undecided_attempt(status: FineTuneJobStatus, outcome: Literal["Failed", "Disrupted"]) -> AttemptStatus | None:
    """The newest attempt if it has this outcome and neither the run's end nor the next attempt is decided yet."""
    attempt = status.attempt
    is_decided = status.phase in FINISHED or attempt is None or attempt.next_time is not None
    return None if is_decided or attempt_state(status) != outcome else attempt


def last_end(status: FineTuneJobStatus) -> EndedAttempt | None:
    """The record of the newest attempt's end; None while it is running and before the first attempt."""
    return None if running_attempt(status) is not None else _record(status)


def preflight_succeeded(status: FineTuneJobStatus) -> bool:
    """Whether preflight has succeeded and the run's hyperparameters are resolved."""
    return status.preflight is not None and bool(status.preflight.succeeded) and status.resolved is not None


def running_preflight(status: FineTuneJobStatus) -> PreflightStatus | None:
    """The preflight that has no result yet."""
    found = status.preflight
    if found is None or status.phase in FINISHED or found.retry_time is not None or found.succeeded is not None:
        return None
    return found


def running_jobs(status: FineTuneJobStatus) -> frozenset[str]:
    """The names of the Jobs that are running according to the status."""
    running = (running_preflight(status), running_attempt(status))
    return frozenset(found.job_name for found in running if found is not None)


def newest_job(status: FineTuneJobStatus) -> str | None:
    """The name of the newest Job."""
    newest = status.attempt or status.preflight
    return None if newest is None else newest.job_name


def progress_reason(status: FineTuneJobStatus) -> Reason:
    """The reason of the Ready condition while nothing holds up the run."""
    return _REASON_OF_ATTEMPT[attempt_state(status)] if preflight_succeeded(status) else Reason.VALIDATING


def disruptions_without_progress(ended: Sequence[EndedAttempt]) -> int:
    """How many attempts in a row were disrupted, counted from the last one that got further; 0 after a failure."""
    count, furthest = 0, -1
    for record in ended:
        step = -1 if record.step is None else record.step
        if record.outcome == "Failed":
            count = 0
        elif record.outcome == "Disrupted":
            count = 1 if step > furthest else count + 1
        furthest = max(furthest, step)
    return count


def with_state(status: FineTuneJobStatus, attempt: AttemptStatus, state: AttemptState) -> FineTuneJobStatus:
    """The status with `attempt` as its newest attempt, in this state."""
    return status.model_copy(update={"attempt": attempt.model_copy(update={"state": state})})


def with_next_time(status: FineTuneJobStatus, next_time: datetime) -> FineTuneJobStatus:
    """The status with this start time of the next attempt."""
    assert status.attempt is not None
    return status.model_copy(update={"attempt": status.attempt.model_copy(update={"next_time": next_time})})


def last_step(status: FineTuneJobStatus, attempt: AttemptStatus) -> int | None:
    """The last step that this attempt reported."""
    progress = status.progress
    is_current = progress is not None and progress.last_updated_time >= attempt.start_time
    return progress.step if progress is not None and is_current else None


def end_attempt(
    status: FineTuneJobStatus,
    attempt: AttemptStatus,
    outcome: AttemptOutcome,
    now: datetime,
    *,
    reason: str | None = None,
    message: str | None = None,
) -> FineTuneJobStatus:
    """The status with `attempt` as its newest attempt, ended now; `reason` is one word, as in a condition."""
    record = EndedAttempt(
        number=attempt.number,
        outcome=outcome,
        reason=reason[:LINE_LENGTH] if reason else None,  # The reason of a Pod's condition may be longer.
        message=message[:LINE_LENGTH] if message else None,
        start_time=attempt.start_time,
        pods_start_time=attempt.pods_start_time,
        end_time=whole_seconds(now),
        step=last_step(status, attempt),
    )
    records = [*status.ended_attempts, record]
    seconds = status.earlier_attempts_seconds + sum(one.pod_seconds for one in records[:-ENDED_ATTEMPTS_KEPT])
    kept = {"ended_attempts": records[-ENDED_ATTEMPTS_KEPT:], "earlier_attempts_seconds": seconds}
    return with_state(without_remaining_time(status).model_copy(update=kept), attempt, outcome)


def stopped(
    status: FineTuneJobStatus, outcome: Literal["Suspended", "Superseded", "Cancelled"], now: datetime
) -> FineTuneJobStatus:
    """The status once everything is stopped: the attempt has this outcome, and preflight starts over."""
    attempt, preflight = running_attempt(status), running_preflight(status)
    if attempt is not None:
        status = end_attempt(status, attempt, outcome, now)
    if preflight is not None:
        again = preflight.model_copy(update={"retry_time": whole_seconds(now)})
        status = status.model_copy(update={"preflight": again})
    return status


def with_checkpoints(
    status: FineTuneJobStatus,
    checkpoints: Sequence[CheckpointStatus],
    corrupt: Sequence[CorruptCheckpoint],
    checkpoint_seconds: float | None,
) -> FineTuneJobStatus:
    """The status with the newest of these checkpoints in the run's folder, and with the longest save so far."""
    checkpoints = [checkpoint for checkpoint in checkpoints if is_below(checkpoint.uri, status.storage_uri)]
    measured = [seconds for seconds in (status.checkpoint_seconds, checkpoint_seconds) if seconds is not None]
    return status.model_copy(
        update={
            "checkpoints": checkpoints[-CHECKPOINTS_SHOWN:],
            "corrupt_checkpoints": list(corrupt[-CORRUPT_CHECKPOINTS_SHOWN:]),
            "checkpoint_seconds": max(measured, default=None),
        }
    )


def without_remaining_time(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status without an estimate of the remaining time, for a run that is over before its last step."""
    if status.progress is None:
        return status
    progress = status.progress.model_copy(update={"estimated_remaining_seconds": None, "estimated_remaining": None})
    return status.model_copy(update={"progress": progress})


def _record(status: FineTuneJobStatus) -> EndedAttempt | None:
    """The record of the newest attempt's end."""
    attempt = status.attempt
    if attempt is None:
        return None
    return next((end for end in reversed(status.ended_attempts) if end.number == attempt.number), None)
