"""What runs according to the status, and the records of the attempts that ended.

An end is always written into the status before the Job is deleted, so that after a crash nobody takes a Job that the
operator removed for one that was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import (
    AttemptOutcome,
    AttemptStatus,
    EndedAttempt,
    FineTuneJobStatus,
    Phase,
    PreflightStatus,
)

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed"})
ENDED_ATTEMPTS_KEPT = 10


def running_attempt(status: FineTuneJobStatus) -> AttemptStatus | None:
    """The attempt of which no end is written down."""
    attempt = status.attempt
    if attempt is None or status.phase in FINISHED or attempt.next_time is not None:
        return None
    return None if any(ended.number == attempt.number for ended in status.ended_attempts) else attempt


def running_try(status: FineTuneJobStatus) -> PreflightStatus | None:
    """The preflight try that has no answer yet."""
    found = status.preflight
    if found is None or status.phase in FINISHED or found.retry_time is not None or found.succeeded is not None:
        return None
    return found


def running_jobs(status: FineTuneJobStatus) -> frozenset[str]:
    """The names of the Jobs that run according to the status."""
    running = (running_try(status), running_attempt(status))
    return frozenset(found.job_name for found in running if found is not None)


def newest_job(status: FineTuneJobStatus) -> str | None:
    """The name of the Job that was made last."""
    newest = status.attempt or status.preflight
    return None if newest is None else newest.job_name


def last_end(status: FineTuneJobStatus) -> EndedAttempt | None:
    """How the newest attempt ended; None while it runs, and before the first one."""
    attempt = status.attempt
    if attempt is None or running_attempt(status) is not None:
        return None
    return next((ended for ended in reversed(status.ended_attempts) if ended.number == attempt.number), None)


def fruitless_disruptions(ended: Sequence[EndedAttempt]) -> int:
    """How many of the last attempts in a row were disrupted, none of them further than any before it."""
    count, furthest = 0, -1
    for record in ended:
        step = -1 if record.step is None else record.step
        if record.outcome == "Failed":
            count = 0
        elif record.outcome == "Disrupted":
            count = 1 if step > furthest else count + 1
        furthest = max(furthest, step)
    return count


def with_end(
    status: FineTuneJobStatus,
    attempt: AttemptStatus,
    outcome: AttemptOutcome,
    now: datetime,
    *,
    reason: str | None = None,
    message: str | None = None,
) -> FineTuneJobStatus:
    """The status with `attempt` as its newest one, which ended now; `reason` is one of a few words."""
    progress = status.progress
    of_this = progress is not None and progress.last_updated_time >= attempt.start_time
    ended = EndedAttempt(
        number=attempt.number,
        outcome=outcome,
        reason=reason,
        message=message[:1024] if message else None,
        start_time=attempt.start_time,
        end_time=whole_seconds(now),
        step=progress.step if progress is not None and of_this else None,
    )
    records = [*status.ended_attempts, ended][-ENDED_ATTEMPTS_KEPT:]
    return status.model_copy(update={"attempt": attempt, "ended_attempts": records})


def stopped(status: FineTuneJobStatus, outcome: Literal["Suspended", "Superseded"], now: datetime) -> FineTuneJobStatus:
    """The status in which nothing runs any more: the attempt ended so, and a preflight try is to be made again."""
    attempt, found = running_attempt(status), running_try(status)
    if attempt is not None:
        status = with_end(status, attempt, outcome, now)
    if found is not None:
        again = found.model_copy(update={"retry_time": whole_seconds(now)})
        status = status.model_copy(update={"preflight": again})
    return status
