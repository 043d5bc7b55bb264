"""The FineTuneJob kind: how the runtime observes, plans and deletes it."""

from __future__ import annotations

from functools import partial

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.kind_definition import Body, Finalizer, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference, dataset_references, model_references
from finetune_operator.environment import Environment
from finetune_operator.finetunejob.attempt_state import FINISHED
from finetune_operator.finetunejob.deletion import observe as deletion_observe
from finetune_operator.finetunejob.deletion import plan as deletion
from finetune_operator.finetunejob.observe import observe
from finetune_operator.finetunejob.plan import plan, rests_on_absence
from finetune_operator.kube.resources import FINE_TUNE_JOBS, JOBS, PODS
from finetune_operator.metrics.job_metrics import JobMetrics


def finetunejob(environment: Environment) -> Kind:
    """It owns Jobs and Pods, and has a finalizer if its class's reclaimPolicy is Delete."""
    return Kind(
        FINE_TUNE_JOBS,
        FineTuneJobStatus,
        partial(observe, environment=environment),
        plan,
        owns=(OwnedResource(JOBS), OwnedResource(PODS)),
        rests_on_absence=rests_on_absence,
        references=_references,
        finalizer=Finalizer(
            deletion.FINALIZER,
            deletion.holds_storage,
            partial(deletion_observe.observe, trainer_image=environment.trainer_image),
            deletion.plan,
        ),
        is_finished=_is_finished,
        metrics=(JobMetrics(),),
    )


def _is_finished(status: FineTuneJobStatus) -> bool:
    """Whether the run is over; a new run that waits for the last Pods of the previous one keeps its phase meanwhile."""
    is_stopping = any(one.type == ConditionType.READY and one.reason == Reason.STOPPING for one in status.conditions)
    return status.phase in FINISHED and not is_stopping


def _references(body: Body) -> frozenset[ObjectKey]:
    spec = body.get("spec", {})
    teacher = (spec.get("method", {}).get("distillation") or {}).get("teacher")
    dataset = spec.get("dataset") or {}
    return (
        class_reference(body)
        | model_references(body, spec.get("model"), teacher)
        | dataset_references(body, dataset.get("training"), dataset.get("validation"))
    )
