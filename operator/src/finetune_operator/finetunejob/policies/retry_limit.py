"""spec.retryLimit: whether another attempt follows one that failed, when it starts, and what ends the run instead."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FailureStatus, FineTuneJobStatus
from finetune_api.outcome import Failure
from finetune_operator.core.conditions import known_reason
from finetune_operator.finetunejob.attempt_state import attempt_state, running_attempt, with_next_time
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import Decision, JobPlan, run_failed
from finetune_operator.pods.backoff import retry_delay_seconds
from finetune_operator.pods.exit_diagnosis import failure_message, outcome
from finetune_operator.pods.start_diagnosis import diagnose_start, image_pull_message, image_pull_timed_out

_MEMORY = frozenset({Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY})
"""Fragmentation or a neighbour may be to blame once; the second time it is what is asked for."""


def end_without_image(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Decision | None:
    """End the run when the image of the running attempt could not be pulled for too long."""
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    if job is None or job.state != "Active":
        return None
    blocked = diagnose_start(job, observed.pods_of(job.name), observed.warnings, now)
    if blocked is None or not image_pull_timed_out(blocked, now):
        return None
    return run_failed(status, blocked.reason, image_pull_message(blocked), now)


def end_at_retry_limit(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Decision | None:
    """End the run when the attempt that failed just now was the last that may, or another one can't help."""
    attempt, diagnosis = _just_failed(observed, status), status.failure
    if attempt is None or diagnosis is None:
        return None
    if not _may_heal(observed, status, attempt, diagnosis):
        return run_failed(status, known_reason(diagnosis.reason), failure_message(diagnosis), now)
    if attempt.retries <= observed.spec.retry_limit:
        return None
    message = (
        f"Training failed {attempt.retries} times, more than retryLimit {observed.spec.retry_limit}. "
        f"The last time: {diagnosis.reason}: {failure_message(diagnosis)}"
    )
    return run_failed(status, Reason.RETRY_LIMIT_REACHED, message, now)


def back_off(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Write down when the attempt after the one that failed just now starts."""
    attempt = _just_failed(observed, plan.status)
    if attempt is None:
        return plan
    next_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(attempt.retries))
    return replace(plan, status=with_next_time(plan.status, next_time))


def _just_failed(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> AttemptStatus | None:
    """The attempt that ran until now, and failed."""
    was_running = running_attempt(observed.status) is not None
    return status.attempt if was_running and attempt_state(status) == "Failed" else None


def _may_heal(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, diagnosis: FailureStatus
) -> bool:
    """Whether another attempt may succeed with the same spec."""
    if diagnosis.reason in _MEMORY:
        return sum(end.reason == diagnosis.reason for end in status.ended_attempts) < 2
    report = outcome(observed.pods_of(attempt.job_name))
    return diagnosis.reason != Reason.REPORT_REFUSED and (not isinstance(report, Failure) or report.retryable)
