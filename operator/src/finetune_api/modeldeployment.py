"""ModelDeployment: serves a tuned model over the OpenAI routes once its gate has passed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, LocalObjectReference, Name, Timestamp
from finetune_api.conditions import KindStatus
from finetune_api.evaluation import ModelReference
from finetune_api.kubernetes_types import keyed_by
from finetune_api.run import ModelSource

Phase = Literal["Waiting", "RollingOut", "Available", "Blocked"]


class Runtime(ApiModel):
    """The server."""

    type: Literal["Transformers"] = Field(
        "Transformers",
        description="Transformers: the trainer image's own server, over OpenAI's routes (docs/how-to/use-a-model.md).",
    )


class DeploymentGate(ApiModel):
    """Nothing is served before this evaluation has passed."""

    evaluation_ref: LocalObjectReference


class ModelDeploymentSpec(ApiModel):
    """What to serve, how often, and behind which gate."""

    class_name: Name | None = Field(
        None, description="FineTuneClass; omitted: the default class, or the one that it is served by already."
    )
    model: ModelReference
    runtime: Runtime = Runtime()
    replicas: int = Field(1, ge=0, le=1024, description="`kubectl scale mdep`, an HPA or KEDA set it too.")
    gate: DeploymentGate | None = None


class DriftedField(ApiModel):
    """A field of what serves that somebody else set, and that was put back."""

    field: Line = Field(description="Kind and path: `Deployment spec.replicas`.")
    manager: Line | None = Field(
        None,
        description="Who set it, by metadata.managedFields; none where it was removed, or "
        "scaled to 0, which leave no name.",
    )
    corrections: int = Field(description="How often it was put back, never 15 minutes apart.")
    last_correction_time: Timestamp


class ServingRevision(ApiModel):
    """A model that has Pods."""

    revision: Line = Field(
        description="Digest of the model, its URI where it has none, or `unknown` where the run configuration of its "
        "Pods was deleted."
    )
    replicas: int = Field(description="Pods of it.")
    ready_replicas: int = Field(description="Pods of it that answer.")


class ModelDeploymentStatus(KindStatus):
    """What is served, and where."""

    phase: Phase | None = Field(None, description="Where the deployment stands, in one word.")
    class_name: Line | None = Field(None, description="The FineTuneClass that the served Pods were made with.")
    url: Line | None = Field(None, description="Base URL of the OpenAI routes inside the cluster.")
    model_name: Line | None = Field(None, description="What to ask for in the request's `model`.")
    revision: Line | None = Field(
        None,
        description="Digest of the model that is served, its URI where it has none. None while no Pod answers. While a "
        "rollout has Pods of two models answer, the one that is to go.",
    )
    served: ModelSource | None = Field(None, description="Where the model of `revision` is.")
    applied: ModelSource | None = Field(
        None,
        description="The model that was rolled out last, by its gate. It is kept up whatever becomes of spec.model and "
        "the gate, and is served once a Pod of it is ready.",
    )
    revisions: list[ServingRevision] = Field(
        default=[],
        json_schema_extra=keyed_by("revision"),
        description="The models that have Pods: one, or two and more during a rollout.",
    )
    replicas: int = Field(0, description="Pods that there are.")
    ready_replicas: int = Field(0, description="Pods that answer.")
    selector: Line | None = Field(None, description="Labels of the Pods, for the scale subresource.")
    drift: list[DriftedField] = Field(
        default=[],
        description="What others set in the Deployment and Service of the same name and was put back in the last 15 "
        "minutes. From the fifth time on it is DriftContested, and put back ever more rarely.",
    )
