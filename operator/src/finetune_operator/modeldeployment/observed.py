"""What is known of a ModelDeployment when its plan is made."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.modeldeployment import Canary, ModelDeploymentSpec, ModelDeploymentStatus, TrafficReport
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import ROLE_LABEL, Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.warning_events import WarningEvent
from finetune_operator.progress.endpoint import ProgressEndpoint


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
    canary_pods: tuple[PodView, ...] = ()
    reports: tuple[TrafficReport, ...] = ()
    """What gateways counted of the canary, and the status may not have yet."""
    progress_endpoint: ProgressEndpoint | None = None
    config_maps: tuple[Object, ...] = ()
    pods: tuple[PodView, ...] = ()
    warnings: tuple[WarningEvent, ...] = ()

    def of_role(self, kind: str, role: str) -> Object | None:
        """The one of this kind and role, if it is there."""
        found = (one for one in self.extras if one["metadata"]["labels"].get(ROLE_LABEL) == role)
        return next((one for one in found if one["kind"] == kind), None)

    @property
    def canary_spec(self) -> Canary:
        """How a canary is judged, with the defaults where the spec leaves it out."""
        return self.spec.rollout.canary or Canary()

    @property
    def resolved_model(self) -> ResolvedModel:
        """The model, after wait_for_model."""
        assert isinstance(self.model, ResolvedModel), "wait_for_model decides before"
        return self.model
