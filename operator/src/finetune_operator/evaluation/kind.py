"""The Evaluation kind: how the runtime observes and plans it."""

from __future__ import annotations

from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.kind_definition import Body, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference, model_references
from finetune_operator.environment import Environment
from finetune_operator.evaluation.observe import observe
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import FINISHED, plan
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import EVALUATIONS, JOBS, PODS, Object
from finetune_operator.metrics.evaluation_metrics import EvaluationMetrics


def evaluation(environment: Environment) -> Kind:
    """It owns Jobs and Pods."""

    async def observe_evaluation(reader: Reader, parent: Object) -> ObservedEvaluation:
        return await observe(
            reader,
            parent,
            trainer_image=environment.trainer_image,
            progress=environment.progress,
            endpoint=environment.progress_endpoint,
        )

    return Kind(
        EVALUATIONS,
        EvaluationStatus,
        observe_evaluation,
        plan,
        owns=(OwnedResource(JOBS), OwnedResource(PODS)),
        references=_references,
        is_finished=lambda status: status.phase in FINISHED,
        metrics=(EvaluationMetrics(),),
    )


def _references(body: Body) -> frozenset[ObjectKey]:
    spec = body.get("spec", {})
    models = [candidate.get("model") for candidate in spec.get("candidates") or []]
    return class_reference(body) | model_references(body, (spec.get("baseline") or {}).get("model"), *models)
