"""How a Pod ended badly, in the status of every kind that makes Jobs: by itself, or by the infrastructure."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import ApiModel, Line, Text


class Disruption(ApiModel):
    """Why the infrastructure removes a Pod, recorded before the Pod disappears."""

    pod: Line = Field(description="Name of the Pod.")
    reason: Line = Field(description="PreemptionByScheduler, EvictionByEvictionAPI, ...")
    message: Line = Field(description="Message of the Pod's condition.")


class FailureStatus(ApiModel):
    """Diagnosis of the most recent failure."""

    reason: Line = Field(description="Reason for the failure (docs/reference/conditions.md).")
    message: Text = Field(description="What happened, and where.")
    pod: Line | None = Field(None, description="Name of the Pod that failed.")
    rank: int | None = Field(None, description="Rank of the process that failed.")
    suggestion: Line | None = Field(None, description="Which field to change, and to which value.")
    log: Text | None = Field(None, description="Last lines of the Pod's log.")
