"""The phase Waiting: no try starts before the class allows it, all models exist, and the Dataset has a revision."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Child
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.class_limits import class_or_refusal
from finetune_operator.evaluation.current_job import current_job, is_same_run, revision_to_read
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.models.resolve import Undecided
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_class(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Start nothing that the class does not allow; a running try continues."""
    found = class_or_refusal(observed)
    if not isinstance(found, Readiness) or current_job(observed) is not None:
        return None
    # A change of a ModelDeployment that the class refers to does not wake this object.
    waits = found.reason in (Reason.WAITING_FOR_MODEL, Reason.REFERENCE_NOT_FOUND)
    again = now + timedelta(seconds=START_CHECK_SECONDS) if waits else None
    readiness = with_previous_failure(found, status.failure if is_same_run(observed) else None, is_bounded=True)
    return EvaluationDecision(
        status, readiness, delete=_active_tries(observed), requeue_at=again, meanwhile=Reason.WAITING_FOR_MODEL
    )


def wait_for_models(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Start nothing, and delete the try whose model no longer exists: its report would be rejected."""
    found, meanwhile = models_to_evaluate(observed), Reason.WAITING_FOR_MODEL
    if not isinstance(found, Readiness):
        return None
    if isinstance(found, Undecided):
        # A running try continues: it ends by its own deadline at the latest.
        return None if current_job(observed) is not None else EvaluationDecision(status, found, meanwhile=meanwhile)
    status = status.model_copy(update={"job_name": None})
    return EvaluationDecision(status, found, delete=_active_tries(observed), meanwhile=meanwhile)


def wait_for_dataset(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Begin no run until the Dataset of dataset.datasetRef has a revision with that split."""
    found = revision_to_read(observed)
    if not isinstance(found, Readiness):
        return None
    return EvaluationDecision(status, found, delete=_active_tries(observed), meanwhile=Reason.WAITING_FOR_DATASET)


def _active_tries(observed: ObservedEvaluation) -> tuple[Child, ...]:
    """Jobs that are still running."""
    active = [job for job in observed.jobs if job.state == "Active"]
    return tries_to_delete(observed.owner.namespace, active, observed.pods)
