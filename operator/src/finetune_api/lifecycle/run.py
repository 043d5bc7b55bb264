"""What the kinds that run have in common: how a run is suspended, cancelled, limited and cleared away."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, Line, Name, Timestamp
from finetune_api.lifecycle.failure import Disruption, FailureStatus
from finetune_api.lifecycle.kind_status import KindStatus

CHANGEABLE_WITHIN_A_RUN = frozenset(
    {"suspend", "cancel", "retryLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "runId"}
)
"""The fields of a spec that may change while a run goes on."""


RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)]


def a_change_is_a_new_run(schema: dict[str, Any], changeable: frozenset[str]) -> dict[str, str]:
    """A CEL rule: within a run, every field but these stays what it was."""
    unchanged = " && ".join(
        f"(has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
        for field in schema["properties"]
        if field not in changeable
    )
    *first, last = [field for field in schema["properties"] if field in changeable and field != "runId"]
    return {
        "rule": f"self.runId != oldSelf.runId || ({unchanged})",
        "message": f"changing the spec starts a new run: change spec.runId too (only {', '.join(first)} and {last} may "
        "change during a run)",
    }


class RunLimits(ApiModel):
    """How often a run is retried, how long it may take, and how long its Pods are kept."""

    retry_limit: int = Field(
        3,
        ge=0,
        le=100,
        description="Maximum number of retries after failures; disruptions never count. A change applies to the "
        "next failure.",
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=LONGEST_SECONDS,
        description="Longest duration, without suspended and queued time. Default and maximum: the class's "
        "limit. A change applies at once.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=LONGEST_SECONDS,
        description="Seconds after the end of the run until its Jobs and Pods are removed; this object stays.",
    )


class RunSpec(RunLimits):
    """The fields of a spec that are about its run, and not about what runs."""

    suspend: bool = Field(
        False,
        description="true: save what is done (a checkpoint, the outputs of models) and stop the Pods. false: run, or "
        "resume from there.",
    )
    cancel: bool = Field(
        False,
        description="true: save what is done, stop the Pods and end the run as Cancelled, for good: only another runId "
        "(with cancel false) runs again. What was saved stays.",
    )


class RunStatus(KindStatus):
    """When the run began and ended, and how long its clock was stopped."""

    start_time: Timestamp | None = None
    completion_time: Timestamp | None = Field(None, description="When the run ended, however it ended.")
    suspend_time: Timestamp | None = Field(
        None, description="When the run was suspended or began to wait for its model, queue quota or budget."
    )
    suspended_seconds: int = Field(0, description="Total time suspended; does not count toward activeDeadlineSeconds.")


class RetriedRunStatus(RunStatus):
    """Which run it is, and what has become of its tries: of a kind whose run is one Job that is retried."""

    phase: str | None = Field(None, description="Current phase of the run.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status describes.")
    run_digest: Line | None = Field(None, description="Digest that tells runs with the same runId apart.")
    class_name: Line | None = Field(None, description="FineTuneClass that the run uses.")
    job_name: Name | None = Field(None, description="Name of the current or most recent Job.")
    try_number: int | None = Field(None, alias="try", description="Number of the try, counting from 1.")
    retries: int = Field(0, description="Failed tries so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Tries ended by the infrastructure.")
    disruption: Disruption | None = Field(None, description="First disruption observed during the current try.")
    retry_time: Timestamp | None = Field(None, description="When the next try starts, if the previous one ended early.")
    storage_uri: Line | None = Field(None, description="Folder of this run.")
    failure: FailureStatus | None = None
