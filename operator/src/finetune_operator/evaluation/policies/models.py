"""spec.candidates and spec.baseline: no try starts before all of their models exist."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.candidates import models_to_judge
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.tries import current_job
from finetune_operator.models.resolve import Undecided


def wait_for_models(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Start nothing, and delete the try whose model no longer exists: its report would be rejected."""
    found, meanwhile = models_to_judge(observed), Reason.WAITING_FOR_MODEL
    if not isinstance(found, Readiness):
        return None
    if isinstance(found, Undecided):
        # A running try continues: it ends by its own deadline at the latest.
        return None if current_job(observed) is not None else EvaluationDecision(status, found, meanwhile=meanwhile)
    running = [job for job in observed.jobs if job.state == "Active"]
    active = tries_to_delete(observed.owner.namespace, running, observed.pods)
    status = status.model_copy(update={"job_name": None})
    return EvaluationDecision(status, found, delete=active, meanwhile=meanwhile)
