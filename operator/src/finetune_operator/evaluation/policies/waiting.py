"""The phase Waiting: no try starts before all models exist, and the Dataset has a revision."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.pinned_revision import revision_to_read
from finetune_operator.evaluation.run import RUN
from finetune_operator.models.resolve import Undecided
from finetune_operator.retried_run.current_try import active_tries, current_job


def wait_for_models(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Start nothing, and delete the try whose model no longer exists: its report would be rejected."""
    found, meanwhile = models_to_evaluate(observed), Reason.WAITING_FOR_MODEL
    if not isinstance(found, Readiness):
        return None
    if isinstance(found, Undecided):
        # A running try continues: it ends by its own deadline at the latest.
        is_running = current_job(RUN, observed) is not None
        return None if is_running else EvaluationDecision(status, found, meanwhile=meanwhile)
    status = status.model_copy(update={"job_name": None})
    return EvaluationDecision(status, found, delete=active_tries(RUN, observed), meanwhile=meanwhile)


def wait_for_dataset(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Begin no run until the Dataset of dataset.datasetRef has a revision with that split."""
    found = revision_to_read(observed)
    if not isinstance(found, Readiness):
        return None
    return EvaluationDecision(status, found, delete=active_tries(RUN, observed), meanwhile=Reason.WAITING_FOR_DATASET)
