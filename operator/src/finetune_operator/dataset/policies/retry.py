"""spec.retryLimit, status.retryTime, the phases Retrying and Failed: whether another try follows, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.dataset import MOST_ERRORS, DatasetStatus
from finetune_api.finetunejob import DatasetFindings
from finetune_operator.core.backoff import waits
from finetune_operator.core.conditions import Readiness, failed, failure_message, known_reason, progressing, sentence
from finetune_operator.dataset.current_job import build_job, current_job, try_result, try_to_watch
from finetune_operator.dataset.ends import fail_run
from finetune_operator.dataset.observed import DatasetDecision, DatasetPlan, ObservedDataset
from finetune_operator.pods.leftovers import lost_job_message
from finetune_operator.pods.retried_job import Disrupted, Failed, retry_limit_message, waiting_to_retry


def record_failure(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Count a failure of the newest try, whatever the spec says by now."""
    result = _failure(observed, now)
    if result is None:
        return plan
    found = (None if result.report is None else result.report.dataset) or DatasetFindings()
    update = {
        "retries": observed.status.retries + 1,
        "failure": result.diagnosis,
        "error_count": found.error_count,
        "errors": found.errors[:MOST_ERRORS],
    }
    return replace(plan, status=plan.status.model_copy(update=update))


def fail_at_retry_limit(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """End the run if another try can't help, or if the limit is reached."""
    result = _failure(observed, now)
    if result is None:
        return None
    diagnosis, message = result.diagnosis, sentence(failure_message(result.diagnosis))
    if result.final:
        return fail_run(observed, status, failed(known_reason(diagnosis.reason), message), now)
    if build_job(observed.spec).allows_another(status.retries):
        return None
    message = retry_limit_message("Building", status.retries, observed.spec.retry_limit, diagnosis)
    return fail_run(observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)


def retry_failed(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Retry, with exponential backoff, a try that failed."""
    if _failure(observed, now) is None:
        return None
    again = build_job(observed.spec).next_time(status.retries, now)
    status = status.model_copy(update={"retry_time": again})
    return DatasetDecision(status, _waiting(observed, status), requeue_at=again, meanwhile=Reason.RETRYING)


def retry_disrupted(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Retry, with exponential backoff, a try that the infrastructure ended: it never counts."""
    message = _disruption(observed, status, now)
    if message is None:
        return None
    disruptions = status.disruptions + 1
    again = build_job(observed.spec).next_time(disruptions, now)
    status = status.model_copy(update={"disruptions": disruptions, "retry_time": again})
    readiness = progressing(Reason.RETRYING, f"{message} The next try starts at {again:%H:%M:%S} UTC.")
    return DatasetDecision(status, readiness, requeue_at=again)


def wait_for_retry_time(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Start no try before status.retryTime."""
    if not waits(status.retry_time, now):
        return None
    readiness = _waiting(observed, status)
    return DatasetDecision(status, readiness, requeue_at=status.retry_time, meanwhile=Reason.RETRYING)


def _waiting(observed: ObservedDataset, status: DatasetStatus) -> Readiness:
    return waiting_to_retry(Reason.BUILDING, status.failure, status.retry_time, observed.status.conditions)


def _failure(observed: ObservedDataset, now: datetime) -> Failed | None:
    """How the newest try failed; None if it has not, or is recorded already."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, job, now)
    return result if isinstance(result, Failed) else None


def _disruption(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> str | None:
    """What disrupted the newest try; None if nothing did."""
    if current_job(observed) is None and status.job_name is not None and status.retry_time is None:
        return lost_job_message(status.job_name, is_disowned=bool(observed.disowned))
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, job, now)
    return result.message if isinstance(result, Disrupted) else None
