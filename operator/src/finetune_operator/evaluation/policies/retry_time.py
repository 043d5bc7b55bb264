"""status.retryTime and the phase Retrying: when the next try starts after one that ended early."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.policies.decision import EvaluationDecision
from finetune_operator.evaluation.tries import current_job, try_result, try_to_watch
from finetune_operator.pods.backoff import waits
from finetune_operator.pods.retried_job import Disrupted, retry_readiness, retry_time


def retry_disrupted(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Something else ended the try: it never counts, and the next one follows with exponential backoff."""
    message = _disruption(observed, status, now)
    if message is None:
        return None
    disruptions = status.disruptions + 1
    again = retry_time(disruptions, now)
    status = status.model_copy(update={"disruptions": disruptions, "retry_time": again})
    readiness = progressing(Reason.RETRYING, f"{message} The next try starts at {again:%H:%M:%S} UTC.")
    return EvaluationDecision(status, readiness, requeue_at=again)


def wait_for_retry_time(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Start no try before that time."""
    if not waits(status.retry_time, now):
        return None
    readiness = waiting_to_retry(observed, status)
    return EvaluationDecision(status, readiness, requeue_at=status.retry_time, meanwhile=Reason.RETRYING)


def waiting_to_retry(observed: ObservedEvaluation, status: EvaluationStatus) -> Readiness:
    """Before a retry: the diagnosis of the failure, or what interrupted it."""
    if status.failure is not None:
        return retry_readiness(Reason.EVALUATING, status.failure, status.retry_time)
    before = next((item for item in observed.status.conditions if item.reason == Reason.RETRYING), None)
    return progressing(Reason.RETRYING, before.message if before else "The infrastructure ended the last try.")


def _disruption(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> str | None:
    """What ended the newest try that is neither a success nor a failure of its own."""
    if current_job(observed) is None and status.job_name is not None and status.retry_time is None:
        return f"Job {status.job_name} of the last try was deleted."
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, status, job, now)
    return result.message if isinstance(result, Disrupted) else None
