"""The preflight tries and training attempts of a run, and how each ended."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Name, Timestamp
from finetune_api.lifecycle import Disruption


class PreflightStatus(ApiModel):
    """The current preflight try, and when the next one starts if it failed."""

    try_number: int = Field(1, alias="try", description="Number of the try, counting from 1.")
    job_name: Name = Field(description="Name of its Pod, or of its Job if an earlier release started it.")
    succeeded: bool | None = Field(None, description="Whether it succeeded. Absent while it is running.")
    retry_time: Timestamp | None = None
    disruption: Disruption | None = Field(None, description="First disruption observed.")


AttemptOutcome = Literal["Succeeded", "Failed", "Disrupted", "Suspended", "Superseded", "Cancelled", "Replaced"]
AttemptState = Literal[
    "Pending", "Running", "Succeeded", "Failed", "Disrupted", "Suspended", "Superseded", "Cancelled", "Replaced"
]


class AttemptStatus(ApiModel):
    """The current or most recent attempt."""

    number: int = Field(description="Number within the run, counting from 1.")
    state: AttemptState | None = Field(
        None,
        description="Pending: not all of its Pods are running yet. Running: all of them are. Otherwise its outcome, "
        "as in endedAttempts.",
    )
    job_name: Name = Field(description="Name of its Job.")
    job_uid: Line | None = Field(
        None, description="UID of its Job. Reports of its Pods are accepted even after the Job is deleted."
    )
    class_generation: int = Field(description="metadata.generation of the FineTuneClass that it was created with.")
    retries: int = Field(0, description="Failed attempts so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Attempts ended by the infrastructure; never count against retryLimit.")
    start_time: Timestamp
    pods_start_time: Timestamp | None = Field(None, description="When the first of its Pods started running.")
    class_deadline_seconds: int | None = Field(
        None,
        description="limits.activeDeadlineSeconds of its class at its start; overrides a longer "
        "spec.activeDeadlineSeconds.",
    )
    reports_to: Line | None = Field(None, description="Digest of the address that its Pods report to and of its CA.")
    disruption: Disruption | None = Field(None, description="First disruption observed.")
    next_time: Timestamp | None = Field(None, description="When the next attempt starts, if this one ended early.")


class EndedAttempt(ApiModel):
    """How an earlier attempt ended."""

    number: int = Field(description="Number within the run, counting from 1.")
    outcome: AttemptOutcome = Field(description="How it ended.")
    reason: Line | None = Field(
        None,
        description="Failed: the diagnosis. Disrupted: the cause (NodeLost, ...). Replaced: what changed before it "
        "started.",
    )
    message: Line | None = Field(None, description="What happened.")
    start_time: Timestamp
    pods_start_time: Timestamp | None = Field(None, description="When the first of its Pods started running.")
    end_time: Timestamp
    step: int | None = Field(None, description="Last step that it reported.")

    @property
    def pod_seconds(self) -> int:
        """How long its Pods ran. If nobody saw since when, and it did not end by itself, they did not."""
        ended_by_itself = self.outcome in ("Succeeded", "Failed", "Disrupted")
        begin = self.pods_start_time or (self.start_time if ended_by_itself else self.end_time)
        return max(0, round((self.end_time - begin).total_seconds()))
