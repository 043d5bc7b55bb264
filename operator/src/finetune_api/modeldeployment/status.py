"""status of a ModelDeployment: what is served, and where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Timestamp
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import KindStatus
from finetune_api.modeldeployment.canary import MOST_ABORTED, AbortedRevision, CanaryStatus
from finetune_api.pod_contracts.run import ModelSource

Phase = Literal["Waiting", "RollingOut", "Canary", "Available", "Blocked"]
UNKNOWN_REVISION = "unknown"
"""Of Pods whose run configuration was deleted."""


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
