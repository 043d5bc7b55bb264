"""The class's limits: no try begins without a class that allows it; one that runs goes on."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.class_limits import admitted_class
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.policies.decision import EvaluationDecision
from finetune_operator.evaluation.tries import current_job
from finetune_operator.pods.builders import jobs_to_delete


def wait_for_class(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Begin nothing that the class does not allow."""
    found = admitted_class(observed)
    if not isinstance(found, Readiness) or current_job(observed) is not None:
        return None
    running = [job for job in observed.jobs if job.state == "Active"]
    active = jobs_to_delete(observed.owner.namespace, running, observed.pods)
    return EvaluationDecision(status, found, delete=active, meanwhile=Reason.WAITING_FOR_MODEL)
