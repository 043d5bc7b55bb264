"""spec.retryLimit: whether another try follows one that failed, or the run ends (the phase Failed)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness, failed, known_reason, sentence
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.policies.decision import EvaluationDecision
from finetune_operator.evaluation.policies.finished import ended
from finetune_operator.evaluation.policies.retry_time import waiting_to_retry
from finetune_operator.evaluation.tries import evaluation_job, try_result, try_to_watch
from finetune_operator.pods.exit_diagnosis import failure_message
from finetune_operator.pods.retried_job import Failed, retry_time

_AGAIN = "Change spec.runId to evaluate again."


def fail_or_retry(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Count a failure; it ends the run where another try can't help, or there were too many."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, status, job, now)
    if not isinstance(result, Failed):
        return None
    retries, diagnosis = status.retries + 1, result.diagnosis
    status = status.model_copy(update={"retries": retries, "failure": diagnosis})
    message = sentence(failure_message(diagnosis))
    if result.final:
        return _failed(observed, status, failed(known_reason(diagnosis.reason), message), now)
    if not evaluation_job(observed.spec).allows_another(retries):
        message = (
            f"The evaluation failed {retries} times, more than retryLimit {observed.spec.retry_limit}. The last time: "
            f"{diagnosis.reason}: {message}"
        )
        return _failed(observed, status, failed(Reason.RETRY_LIMIT_REACHED, message), now)
    again = retry_time(retries, now)
    status = status.model_copy(update={"retry_time": again})
    readiness = waiting_to_retry(observed, status)
    return EvaluationDecision(status, readiness, requeue_at=again, meanwhile=Reason.RETRYING)


def _failed(
    observed: ObservedEvaluation, status: EvaluationStatus, readiness: Readiness, now: datetime
) -> EvaluationDecision:
    """The end of the run, for good: only a new runId, or another model, starts again."""
    if "runId" not in readiness.message:
        readiness = replace(readiness, message=f"{readiness.message} {_AGAIN}")
    return ended(observed, status.model_copy(update={"completion_time": whole_seconds(now)}), readiness, now)
