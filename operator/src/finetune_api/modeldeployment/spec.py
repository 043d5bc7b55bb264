"""spec of a ModelDeployment: the model that is served, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, Line, LocalObjectReference, Name, cel
from finetune_api.evaluation import ModelReference
from finetune_api.modeldeployment.canary import Canary

MOST_CONNECTIONS = 512
"""Of a serving Pod, which closes the oldest of more: each request of a gateway is one."""


class Runtime(ApiModel):
    """The model server."""

    type: Literal["Transformers"] = Field(
        "Transformers",
        description="Transformers: the OpenAI-compatible server in the trainer image (docs/how-to/use-a-model.md).",
    )


class DeploymentGate(ApiModel):
    """The evaluation that a model must pass before it is served."""

    evaluation_ref: LocalObjectReference


class Rollout(ApiModel):
    """How the Pods of one revision replace those of another."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.canary) || self.type == 'Canary'", "canary is for type Canary", "canary"),
        )
    )

    type: Literal["RollingUpdate", "Recreate", "Canary"] = Field(
        "RollingUpdate",
        description="RollingUpdate: a Pod of the new revision starts beside the old ones, and no request fails; it "
        "takes the accelerators of one more replica. Recreate: the old Pods end first, and nothing is served "
        "meanwhile; for clusters that have no accelerator to spare. Canary: as RollingUpdate, after the new model has "
        "answered a share of the requests no worse than the old one; it needs spec.gateway.",
    )
    canary: Canary | None = Field(None, description="Of type Canary. Omitted: its defaults.")
    rollback_to: Line | None = Field(
        None,
        description="A revision of status.history that has served: it is rolled out at once, instead of spec.model, "
        "and kept as long as this is set, without gate, canary and approval.",
    )


class ModelDeploymentSpec(ApiModel):
    """Which model to serve, with how many replicas, behind which gate."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.rollout) || self.rollout.type != 'Canary' || has(self.gateway)",
                "rollout.type Canary needs a gateway, which splits the requests",
                "gateway",
            ),
        )
    )

    class_name: Name | None = Field(
        None,
        description="Name of the FineTuneClass. Omitted: the class that the model is already served with, "
        "otherwise the default class.",
    )
    model: ModelReference
    runtime: Runtime = Runtime()
    replicas: int = Field(
        1, ge=0, le=1024, description="Number of serving Pods. `kubectl scale mdep`, an HPA or KEDA can also set it."
    )
    gate: DeploymentGate | None = None
    rollout: Rollout = Rollout()
    gateway: Gateway | None = Field(
        None, description="A gateway in front of the serving Pods. Omitted: the Service leads to them directly."
    )


class Gateway(ApiModel):
    """One address in front of the serving Pods: it bounds what reaches them, and lets only the API's routes through."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                f"self.replicas * self.inFlightLimit <= {MOST_CONNECTIONS}",
                f"a serving Pod has {MOST_CONNECTIONS} connections: replicas times inFlightLimit must not exceed that",
                "inFlightLimit",
            )
        )
    )

    replicas: int = Field(2, ge=1, le=16, description="Number of gateway Pods. They need no accelerator.")
    in_flight_limit: int = Field(
        64,
        ge=1,
        le=MOST_CONNECTIONS,
        description="Maximum number of requests at a time at one serving Pod, from each gateway Pod. Times `replicas`, "
        f"at most {MOST_CONNECTIONS}, the connections of a serving Pod.",
    )
    queue_limit: int = Field(
        256,
        ge=0,
        le=16384,
        description="Maximum number of requests that wait in a gateway Pod for a serving Pod to have room. More are "
        "answered with 429.",
    )
    queue_seconds: int = Field(
        30, ge=0, le=600, description="How long a request waits before it is answered with 429 (503: no Pod is ready)."
    )
