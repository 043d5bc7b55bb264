"""What is known of a ModelDeployment when its plan is made."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.warning_events import WarningEvent


@dataclass(frozen=True)
class GateEvaluation:
    """The evaluation that gates a deployment."""

    generation: int
    spec: EvaluationSpec
    status: EvaluationStatus


@dataclass(frozen=True)
class ObservedModelDeployment:
    """The parent, its class, model and gate, and what serves it now."""

    owner: Owner
    generation: int
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus
    class_: ResolvedClass | Readiness
    model: ResolvedModel | Readiness
    gate: GateEvaluation | Readiness | None = None
    deployment: Object | None = None
    service: Object | None = None
    extras: tuple[Object, ...] = ()
    """What else is there for it, of this ModelDeployment: disruption budgets, and the objects of its gateway."""
    gateway_image: str | None = None
    gateway_pods: tuple[PodView, ...] = ()
    """Of a gateway that is not ready."""
    config_maps: tuple[Object, ...] = ()
    pods: tuple[PodView, ...] = ()
    warnings: tuple[WarningEvent, ...] = ()

    @property
    def resolved_model(self) -> ResolvedModel:
        """The model, after wait_for_model."""
        assert isinstance(self.model, ResolvedModel), "wait_for_model decides before"
        return self.model
