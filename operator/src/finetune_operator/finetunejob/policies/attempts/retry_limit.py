"""spec.retryLimit: whether another attempt follows one that failed, or the run ends."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.outcome import Failure
from finetune_operator.core.conditions import known_reason
from finetune_operator.finetunejob.attempt_state import undecided_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision, run_failed
from finetune_operator.pods.exit_diagnosis import failure_message, may_heal, outcome


def fail_at_retry_limit(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run when the attempt that failed was the last that may, or another one can't help."""
    attempt, diagnosis = undecided_attempt(status, "Failed"), status.failure
    if attempt is None or diagnosis is None:
        return None
    report = outcome(observed.pods_of(attempt.job_name))
    earlier = [end.reason for end in status.ended_attempts if end.number != attempt.number]
    if not may_heal(diagnosis, report if isinstance(report, Failure) else None, earlier):
        return run_failed(status, known_reason(diagnosis.reason), failure_message(diagnosis), now)
    if attempt.retries <= observed.spec.retry_limit:
        return None
    message = (
        f"Training failed {attempt.retries} times, more than retryLimit {observed.spec.retry_limit}. "
        f"The last time: {diagnosis.reason}: {failure_message(diagnosis)}"
    )
    return run_failed(status, Reason.RETRY_LIMIT_REACHED, message, now)
