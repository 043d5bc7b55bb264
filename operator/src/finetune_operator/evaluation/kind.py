"""The Evaluation kind: how the runtime observes and plans it."""

from __future__ import annotations

from functools import partial

from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.kind_definition import Body, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference, dataset_references, model_references
from finetune_operator.environment import Environment
from finetune_operator.evaluation.observe import observe
from finetune_operator.evaluation.plan import FINISHED, plan
from finetune_operator.kube.resources import EVALUATIONS, JOBS, PODS
from finetune_operator.metrics.evaluation_metrics import EvaluationMetrics
from finetune_operator.retried_run.absence import rests_on_absence


def evaluation(environment: Environment) -> Kind:
    """It owns Jobs and Pods."""
    return Kind(
        EVALUATIONS,
        EvaluationStatus,
        partial(observe, environment=environment),
        plan,
        owns=(OwnedResource(JOBS), OwnedResource(PODS)),
        rests_on_absence=rests_on_absence,
        references=_references,
        is_finished=lambda status: status.phase in FINISHED,
        metrics=(EvaluationMetrics(),),
    )


def _references(body: Body) -> frozenset[ObjectKey]:
    spec = body.get("spec", {})
    models = [candidate.get("model") for candidate in spec.get("candidates") or []]
    return (
        class_reference(body)
        | model_references(body, (spec.get("baseline") or {}).get("model"), *models)
        | dataset_references(body, spec.get("dataset"))
    )
