"""status.attempt.nextTime and status.preflight.retryTime: when the next one starts after one that ended early."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.finetunejob.attempt_state import (
    attempt_state,
    disruptions_without_progress,
    last_end,
    preflight_succeeded,
    undecided_attempt,
    with_next_time,
)
from finetune_operator.finetunejob.next_job import next_job
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.attempts.preflight import preflight_readiness
from finetune_operator.finetunejob.policies.decision import JobDecision, JobPlan
from finetune_operator.finetunejob.stopping import next_check, stale_jobs
from finetune_operator.pods.backoff import retry_delay_seconds, waits


def record_next_time(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Write down when the attempt after one that ended early starts."""
    status = plan.status
    if (failed := undecided_attempt(status, "Failed")) is not None:
        next_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(failed.retries))
    elif (disrupted := undecided_attempt(status, "Disrupted")) is not None:
        next_time = _after_disruption(status, disrupted, whole_seconds(now))
    else:
        return plan
    return replace(plan, status=with_next_time(status, next_time))


def wait_for_next_time(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing before that time."""
    if not preflight_succeeded(status):
        preflight = status.preflight
        if preflight is None or not waits(preflight.retry_time, now):
            return None
        return JobDecision(
            status, preflight_readiness(status), delete=stale_jobs(observed), requeue_at=preflight.retry_time
        )
    attempt = status.attempt
    if attempt is None or attempt.next_time is None or not waits(attempt.next_time, now):
        return None
    return JobDecision(
        status,
        _between_attempts(observed, status, attempt),
        delete=stale_jobs(observed, keep=next_job(observed.owner, status).name),
        requeue_at=next_check(observed, now, attempt.next_time),
    )


def _after_disruption(status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime) -> datetime:
    """At once after progress, by the time from start to start otherwise: a node may evict each attempt at once."""
    apart = timedelta(seconds=retry_delay_seconds(disruptions_without_progress(status.ended_attempts)))
    # A start in the future (a wrong clock) delays nothing.
    return min(max(now + timedelta(seconds=1), attempt.start_time + apart), now + apart)


def _between_attempts(observed: ObservedFineTuneJob, status: FineTuneJobStatus, before: AttemptStatus) -> Readiness:
    """What ended the attempt before, and when the next one starts."""
    end = last_end(status)
    if end is None:
        return progressing(Reason.RETRYING)
    if attempt_state(status) == "Failed":
        message = (
            f"Attempt {before.number} failed ({end.reason}: {end.message}) Retry {before.retries} of "
            f"{observed.spec.retry_limit} starts at {before.next_time:%H:%M:%S} UTC from the newest checkpoint."
        )
    else:
        message = (
            f"Attempt {before.number} was disrupted ({end.reason}: {end.message}) The next one resumes from the newest "
            f"checkpoint.{_without_progress_message(status, before)}"
        )
    return progressing(Reason.RETRYING, message)


def _without_progress_message(status: FineTuneJobStatus, before: AttemptStatus) -> str:
    """Why the next attempt waits after a disruption, with a space before it; empty where it starts at once."""
    count = disruptions_without_progress(status.ended_attempts)
    if count < 2 or before.next_time is None:
        return ""
    return f" {count} in a row were disrupted without progress: it starts at {before.next_time:%H:%M:%S} UTC."
