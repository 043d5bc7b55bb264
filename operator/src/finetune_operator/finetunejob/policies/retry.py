"""spec.retryLimit and status.attempt.nextTime: whether and when the next attempt starts.

The delay after a failure is 10 s, doubled after each further one, 10 minutes at most (core/backoff.py). An image that
can't be pulled for too long ends the run, too (reason ImagePullFailed). What counts as a retry: attempt.py.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus
from finetune_api.pod_contracts.outcome import Failure
from finetune_operator.core.backoff import retry_delay_seconds, waits
from finetune_operator.core.conditions import Readiness, failure_message, known_reason, progressing
from finetune_operator.finetunejob.attempt_state import (
    JobDecision,
    JobPlan,
    attempt_state,
    disruptions_without_progress,
    last_end,
    preflight_succeeded,
    running_attempt,
    undecided_attempt,
    with_next_time,
)
from finetune_operator.finetunejob.ends import end_message, run_failed
from finetune_operator.finetunejob.objects import next_job
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.stale_jobs import next_check, stale_jobs
from finetune_operator.pods.job_outcome import is_retryable, outcome
from finetune_operator.pods.start_diagnosis import diagnose_start, image_pull_message, image_pull_timed_out


def fail_at_image_pull(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run when the image of the current attempt could not be pulled for 15 minutes."""
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    if job is None or job.state != "Active":
        return None
    blocked = diagnose_start(job, observed.pods_of(job.name), observed.warnings, now)
    if blocked is None or not image_pull_timed_out(blocked, now):
        return None
    return run_failed(status, blocked.reason, image_pull_message(blocked), now)


def fail_at_retry_limit(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run if the failed attempt was the last one allowed, or if another one can't help."""
    attempt, diagnosis = undecided_attempt(status, "Failed"), status.failure
    if attempt is None or diagnosis is None:
        return None
    report = outcome(observed.pods_of(attempt.job_name))
    earlier = [end.reason for end in status.ended_attempts if end.number != attempt.number]
    if not is_retryable(diagnosis, report if isinstance(report, Failure) else None, earlier):
        return run_failed(status, known_reason(diagnosis.reason), failure_message(diagnosis), now)
    if attempt.retries <= observed.spec.retry_limit:
        return None
    message = (
        f"Training failed {attempt.retries} times, more often than retryLimit {observed.spec.retry_limit} allows. "
        f"Last failure: {diagnosis.reason}: {failure_message(diagnosis)}"
    )
    return run_failed(status, Reason.RETRY_LIMIT_REACHED, message, now)


def record_next_time(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record when the next attempt starts after one that failed or was disrupted."""
    status = plan.status
    if (failed := undecided_attempt(status, "Failed")) is not None:
        next_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(failed.retries))
    elif (disrupted := undecided_attempt(status, "Disrupted")) is not None:
        next_time = _after_disruption(status, disrupted, whole_seconds(now))
    else:
        return plan
    return replace(plan, status=with_next_time(status, next_time))


def wait_for_next_time(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start no attempt before status.attempt.nextTime."""
    attempt = status.attempt if preflight_succeeded(status) else None
    if attempt is None or attempt.next_time is None or not waits(attempt.next_time, now):
        return None
    return JobDecision(
        status,
        _between_attempts(observed, status, attempt),
        delete=stale_jobs(observed, keep=next_job(observed.owner, status).name),
        requeue_at=next_check(observed, now, attempt.next_time),
    )


def _after_disruption(status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime) -> datetime:
    """Immediately after progress; otherwise with backoff between starts, since a node may evict every attempt."""
    backoff = timedelta(seconds=retry_delay_seconds(disruptions_without_progress(status.ended_attempts)))
    # A start time in the future (a wrong clock) adds no delay.
    return min(max(now + timedelta(seconds=1), attempt.start_time + backoff), now + backoff)


def _between_attempts(observed: ObservedFineTuneJob, status: FineTuneJobStatus, before: AttemptStatus) -> Readiness:
    """Why the previous attempt ended, and when the next one starts."""
    end = last_end(status)
    if end is None:
        return progressing(Reason.RETRYING)
    if attempt_state(status) == "Failed":
        message = (
            f"{end_message(end)} Retry {before.retries} of {observed.spec.retry_limit} starts at "
            f"{before.next_time:%H:%M:%S} UTC from the newest checkpoint."
        )
    else:
        message = (
            f"{end_message(end)} The next one resumes from the newest checkpoint."
            f"{_without_progress_message(status, before)}"
        )
    return progressing(Reason.RETRYING, message)


def _without_progress_message(status: FineTuneJobStatus, before: AttemptStatus) -> str:
    """Why the next attempt waits after a disruption, with a leading space; empty if it starts immediately."""
    count = disruptions_without_progress(status.ended_attempts)
    if count < 2 or before.next_time is None:
        return ""
    waits_until = f"{before.next_time:%H:%M:%S} UTC"
    return f" {count} attempts in a row were disrupted, the last one without progress, so it waits until {waits_until}."
