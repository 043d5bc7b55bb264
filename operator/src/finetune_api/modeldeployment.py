"""ModelDeployment: serves a tuned model with an OpenAI-compatible API once its gate has passed."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, Line, LocalObjectReference, Name, Timestamp, cel
from finetune_api.canary import MOST_ABORTED, AbortedRevision, Canary, CanaryStatus
from finetune_api.conditions import KindStatus
from finetune_api.evaluated_models import ModelReference
from finetune_api.kubernetes_types import keyed_by
from finetune_api.run import ModelSource

Phase = Literal["Waiting", "RollingOut", "Canary", "Available", "Blocked"]
UNKNOWN_REVISION = "unknown"
"""Of Pods whose run configuration was deleted."""
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


class DriftedField(ApiModel):
    """A field of a serving object that another client changed and the operator corrected."""

    field: Line = Field(description="Kind and path, such as `Deployment spec.replicas`.")
    manager: Line | None = Field(
        None,
        description="Who changed it, from metadata.managedFields. Absent when the field was removed or scaled to 0, "
        "which leaves no manager.",
    )
    corrections: int = Field(
        description="How many times it was corrected, with less than 15 minutes between two corrections."
    )
    last_correction_time: Timestamp
    last_change: Line | None = Field(
        None, description="The change that was corrected last, by metadata.managedFields; it is counted once."
    )


class DriftRounds(ApiModel):
    """How often anything was corrected, whichever field it was and whoever changed it."""

    count: int = Field(
        description="Number of times, several fields at once counting once, with less than 15 minutes between two."
    )
    last_correction_time: Timestamp


class ServingRevision(ApiModel):
    """A model that has serving Pods."""

    revision: Line = Field(
        description="Digest of the model; its URI if it has no digest; `unknown` if the run configuration of its Pods "
        "was deleted."
    )
    replicas: int = Field(description="Number of its Pods.")
    ready_replicas: int = Field(description="Number of its Pods that are ready.")


class RolledOutRevision(ApiModel):
    """A revision that was rolled out."""

    revision: Line = Field(description="Digest of the model; its URI if it has no digest.")
    model: ModelSource | None = Field(None, description="Location of the model.")
    applied_time: Timestamp = Field(description="Time at which its rollout began.")
    available_time: Timestamp | None = Field(
        None,
        description="Time at which every replica served it, and nothing else did. Absent: it is not that far, or was "
        "superseded before it was.",
    )


class ModelDeploymentStatus(KindStatus):
    """What is being served, and where."""

    phase: Phase | None = Field(None, description="Current phase of the deployment.")
    class_name: Line | None = Field(None, description="FineTuneClass that the serving Pods were created with.")
    url: Line | None = Field(None, description="Base URL of the OpenAI-compatible API inside the cluster.")
    model_name: Line | None = Field(None, description="Value for the request's `model` field.")
    revision: Line | None = Field(
        None,
        description="Digest of the model that is being served, or its URI if it has no digest. Absent while no Pod is "
        "ready. While Pods of two models are ready during a rollout, this is the old model.",
    )
    served: ModelSource | None = Field(None, description="Location of the model in `revision`.")
    applied: ModelSource | None = Field(
        None,
        description="The model that passed its gate and was rolled out most recently. It is kept running even if "
        "spec.model or the gate changes, and is served once one of its Pods is ready.",
    )
    revisions: list[ServingRevision] = Field(
        default=[],
        json_schema_extra=keyed_by("revision"),
        description="The models that have Pods: one, or several during a rollout.",
    )
    history: list[RolledOutRevision] = Field(
        default=[],
        description="The last ten rollouts, the newest first. A model may be in it more than once.",
    )
    canary: CanaryStatus | None = Field(None, description="The model that proves itself beside the one that serves.")
    aborted: list[AbortedRevision] = Field(
        default=[],
        max_length=MOST_ABORTED,
        description="The last ten canaries that were rolled back, the newest first.",
    )
    unready_time: Timestamp | None = Field(None, description="Of type Canary: since when no serving Pod is ready.")
    replicas: int = Field(0, description="Number of Pods.")
    ready_replicas: int = Field(0, description="Number of ready Pods.")
    selector: Line | None = Field(None, description="Label selector for the Pods, for the scale subresource.")
    drift: list[DriftedField] = Field(
        default=[],
        description="Fields of the Deployment and Service of the same name that other clients changed and the "
        "operator corrected in the last 15 minutes. From the fifth correction on, the reason is "
        "DriftContested and corrections become less frequent.",
    )
    drift_rounds: DriftRounds | None = Field(
        None,
        description="How often fields were corrected in all. From the twentieth time on, also fields that were never "
        "changed before are corrected less frequently.",
    )
