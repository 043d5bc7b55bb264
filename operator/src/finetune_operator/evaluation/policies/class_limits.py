"""The class's limits: no try starts without a class that allows it; a running one continues."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.class_limits import class_or_refusal
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.tries import current_job, is_same_run
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_class(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Start nothing that the class does not allow."""
    found = class_or_refusal(observed)
    if not isinstance(found, Readiness) or current_job(observed) is not None:
        return None
    running = [job for job in observed.jobs if job.state == "Active"]
    active = tries_to_delete(observed.owner.namespace, running, observed.pods)
    # A change of a ModelDeployment that the class refers to does not wake this object.
    waits = found.reason in (Reason.WAITING_FOR_MODEL, Reason.REFERENCE_NOT_FOUND)
    again = now + timedelta(seconds=START_CHECK_SECONDS) if waits else None
    readiness = with_previous_failure(found, status.failure if is_same_run(observed) else None, is_bounded=True)
    return EvaluationDecision(status, readiness, delete=active, requeue_at=again, meanwhile=Reason.WAITING_FOR_MODEL)
