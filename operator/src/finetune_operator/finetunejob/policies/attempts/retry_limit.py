"""spec.retryLimit: whether another attempt follows one that failed, or the run ends."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FailureStatus, FineTuneJobStatus
from finetune_api.outcome import Failure
from finetune_operator.core.conditions import known_reason
from finetune_operator.finetunejob.attempt_state import undecided_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision, run_failed
from finetune_operator.pods.exit_diagnosis import failure_message, outcome

_MEMORY = frozenset({Reason.CUDA_OUT_OF_MEMORY, Reason.OUT_OF_MEMORY})
"""Fragmentation or a neighbour may be to blame once; the second time it is what is asked for."""


def fail_at_retry_limit(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run when the attempt that failed was the last that may, or another one can't help."""
    attempt, diagnosis = undecided_attempt(status, "Failed"), status.failure
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


def _may_heal(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, diagnosis: FailureStatus
) -> bool:
    """Whether another attempt may succeed with the same spec."""
    if diagnosis.reason in _MEMORY:
        return sum(end.reason == diagnosis.reason for end in status.ended_attempts) < 2
    report = outcome(observed.pods_of(attempt.job_name))
    return diagnosis.reason != Reason.REPORT_REFUSED and (not isinstance(report, Failure) or report.retryable)
