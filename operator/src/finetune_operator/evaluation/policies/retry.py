"""spec.retryLimit, status.retryTime, the phases Retrying and Failed: whether another try follows, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.backoff import waits
from finetune_operator.core.conditions import Readiness, failed, failure_message, known_reason, progressing, sentence
from finetune_operator.evaluation.current_job import (
    asks_another_revision,
    current_job,
    evaluation_job,
    try_result,
    try_to_watch,
)
from finetune_operator.evaluation.ends import fail_run, without_remaining_time
from finetune_operator.evaluation.observed import EvaluationDecision, EvaluationPlan, ObservedEvaluation
from finetune_operator.pods.leftovers import lost_job_message
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Disrupted, Failed, retry_limit_message, waiting_to_retry


def record_failure(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Count a failure of the newest try, whatever the spec says by now."""
    result = _failure(observed, now)
    if result is None:
        return plan
    update = {"retries": observed.status.retries + 1, "failure": result.diagnosis}
    return replace(plan, status=plan.status.model_copy(update=update))


def fail_at_retry_limit(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """End the run if another try can't help, or if the limit is reached."""
    result = _failure(observed, now)
    if result is None:
        return None
    diagnosis, message = result.diagnosis, sentence(failure_message(result.diagnosis))
    if result.final:
        return fail_run(observed, status, failed(known_reason(diagnosis.reason), message), now)
    if evaluation_job(observed.spec).allows_another(status.retries):
        return None
    message = retry_limit_message("The evaluation", status.retries, observed.spec.retry_limit, diagnosis)
    return fail_run(observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)


def retry_failed(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Retry, with exponential backoff, a try that failed."""
    if _failure(observed, now) is None:
        return None
    again = evaluation_job(observed.spec).next_time(status.retries, now)
    status = without_remaining_time(status).model_copy(update={"retry_time": again})
    readiness = _waiting(observed, status)
    return EvaluationDecision(status, readiness, requeue_at=again, meanwhile=Reason.RETRYING)


def retry_disrupted(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Retry, with exponential backoff, a try that the infrastructure ended: it never counts."""
    message = _disruption(observed, status, now)
    if message is None:
        return None
    disruptions = status.disruptions + 1
    again = evaluation_job(observed.spec).next_time(disruptions, now)
    status = without_remaining_time(status).model_copy(update={"disruptions": disruptions, "retry_time": again})
    readiness = progressing(Reason.RETRYING, f"{message} The next try starts at {again:%H:%M:%S} UTC.")
    return EvaluationDecision(status, readiness, requeue_at=again)


def wait_for_retry_time(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Start no try before status.retryTime."""
    if not waits(status.retry_time, now):
        return None
    readiness = _waiting(observed, status)
    return EvaluationDecision(status, readiness, requeue_at=status.retry_time, meanwhile=Reason.RETRYING)


def _waiting(observed: ObservedEvaluation, status: EvaluationStatus) -> Readiness:
    return waiting_to_retry(Reason.EVALUATING, status.failure, status.retry_time, observed.status.conditions)


def _failure(observed: ObservedEvaluation, now: datetime) -> Failed | None:
    """How the newest try failed; None if it has not, or is recorded already."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, observed.status, job, now)
    if job is None or not isinstance(result, Failed) or _is_rollout(observed, job, result):
        return None
    return result


def _is_rollout(observed: ObservedEvaluation, job: JobView, result: Failed) -> bool:
    """Whether another revision was rolled out; a server that never reports its own revision would only fail again."""
    return result.diagnosis.reason == Reason.MODEL_CHANGED and asks_another_revision(observed, job)


def _disruption(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> str | None:
    """What disrupted the newest try; None if nothing did."""
    if current_job(observed) is None and status.job_name is not None and status.retry_time is None:
        return lost_job_message(status.job_name, is_disowned=bool(observed.disowned))
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, status, job, now)
    if job is not None and isinstance(result, Failed) and _is_rollout(observed, job, result):
        return sentence(result.diagnosis.message)
    return result.message if isinstance(result, Disrupted) else None
