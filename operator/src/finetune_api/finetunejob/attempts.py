"""The tries of a run: preflight, attempts at training, and how each ended."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Name, Text, Timestamp


class Disruption(ApiModel):
    """What the infrastructure said of a Pod that it takes away: the Pod is soon gone, and its conditions with it."""

    pod: Line = Field(description="Name of the Pod.")
    reason: Line = Field(description="PreemptionByScheduler, EvictionByEvictionAPI, ...")
    message: Line = Field(description="What the infrastructure said.")


class PreflightStatus(ApiModel):
    """Which preflight try stands, and when the next one starts if it failed."""

    try_number: int = Field(1, alias="try", description="Which try, counted from 1.")
    job_name: Name = Field(description="Its Job.")
    succeeded: bool | None = Field(None, description="Whether it succeeded; absent while it runs.")
    retry_time: Timestamp | None = None
    disruption: Disruption | None = Field(None, description="As it was seen first.")


AttemptOutcome = Literal["Succeeded", "Failed", "Disrupted", "Suspended", "Superseded", "Replaced"]
AttemptState = Literal["Pending", "Running", "Succeeded", "Failed", "Disrupted", "Suspended", "Superseded", "Replaced"]


class AttemptStatus(ApiModel):
    """The attempt that runs, or ran last."""

    number: int = Field(description="Which attempt of the run, counted from 1.")
    state: AttemptState | None = Field(
        None,
        description="Pending: its Job is made, and not all of its Pods run yet. Running: they do. Otherwise how it "
        "ended, as in endedAttempts. Absent: an earlier version wrote it.",
    )
    job_name: Name = Field(description="Its Job.")
    class_generation: int = Field(description="metadata.generation of the FineTuneClass that it was made with.")
    retries: int = Field(0, description="Attempts that failed so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Attempts lost to the infrastructure; never count.")
    start_time: Timestamp
    pods_start_time: Timestamp | None = Field(None, description="When the first of its Pods began to run.")
    class_deadline_seconds: int | None = Field(
        None,
        description="limits.activeDeadlineSeconds of its class when it started: the run ends then, whatever "
        "spec.activeDeadlineSeconds says.",
    )
    reports_to: Line | None = Field(None, description="Digest of the address that its Pods report to, and of its CA.")
    disruption: Disruption | None = Field(None, description="As it was seen first.")
    next_time: Timestamp | None = Field(None, description="When the next attempt starts, if this one ended early.")


class EndedAttempt(ApiModel):
    """How an earlier attempt ended."""

    number: int = Field(description="Which attempt of the run, counted from 1.")
    outcome: AttemptOutcome = Field(description="How it ended.")
    reason: Line | None = Field(
        None,
        description="Failed: the diagnosis. Disrupted: who ended it (PreemptionByScheduler, NodeLost, ...). Replaced: "
        "what had changed before it started.",
    )
    message: Line | None = Field(None, description="What happened.")
    start_time: Timestamp
    end_time: Timestamp
    step: int | None = Field(None, description="The last step that it reported.")


class FailureStatus(ApiModel):
    """The diagnosis of the newest failure."""

    reason: Line = Field(description="One word for what failed (docs/reference/conditions.md).")
    message: Text = Field(description="What happened, and where.")
    pod: Line | None = Field(None, description="Name of the Pod that failed.")
    rank: int | None = Field(None, description="Rank of the process that failed.")
    suggestion: Line | None = Field(None, description="Which field to change, and to what.")
    log: Text | None = Field(None, description="The last lines of the Pod's log.")
