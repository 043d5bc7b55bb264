"""ModelDeployment, as the runtime knows it."""

from __future__ import annotations

from functools import partial

from finetune_api.kinds import EVALUATION
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.kind_definition import Body, Kind, OwnedResource
from finetune_operator.core.references import ObjectKey, class_reference, model_references
from finetune_operator.environment import Environment
from finetune_operator.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    MODEL_DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
)
from finetune_operator.modeldeployment.observe import observe
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.pods.roles import SERVE_ROLE


def modeldeployment(environment: Environment) -> Kind:
    """What somebody changes or deletes of what serves is put right at once."""
    return Kind(
        MODEL_DEPLOYMENTS,
        ModelDeploymentStatus,
        partial(observe, environment=environment),
        plan,
        owns=(
            OwnedResource(DEPLOYMENTS),
            OwnedResource(PODS),
            OwnedResource(SERVICES, role=SERVE_ROLE),
            OwnedResource(CONFIG_MAPS, role=SERVE_ROLE),
            OwnedResource(POD_DISRUPTION_BUDGETS, role=SERVE_ROLE),
        ),
        references=_references,
    )


def _references(body: Body) -> frozenset[ObjectKey]:
    spec = body.get("spec", {})
    evaluation = (spec.get("gate") or {}).get("evaluationRef")
    gate = {ObjectKey(EVALUATION.name, body["metadata"].get("namespace", ""), evaluation["name"])} if evaluation else ()
    return class_reference(body) | model_references(body, spec.get("model")) | frozenset(gate)
