"""What the operator knows of a FineTuneJob."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from finetune_api.base import ApiModel, FiniteNumber, Line, Timestamp
from finetune_api.conditions import KindStatus, UnreadableStatusError
from finetune_api.finetunejob.attempts import AttemptStatus, EndedAttempt, FailureStatus, PreflightStatus
from finetune_api.finetunejob.checkpoints import CheckpointStatus, CorruptCheckpoint
from finetune_api.finetunejob.findings import DatasetStatus, MemoryEstimate, ModelStatus
from finetune_api.finetunejob.hyperparameters import ResolvedHyperparameters
from finetune_api.kubernetes_types import keyed_by

Phase = Literal["Validating", "Queued", "Training", "Retrying", "Suspended", "Succeeded", "Failed"]


class StartingModel(ApiModel):
    """What the run started from: model.uri, or what model.fineTuneJobRef meant then. Nothing changes it later."""

    uri: Line = Field(description="Whole model.")
    adapter_uri: Line | None = Field(None, description="Folder of the adapter upon it.")
    digest: Line | None = Field(None, description="sha256 of the result's manifest.")


class Progress(ApiModel):
    """The newest report of rank 0."""

    step: int = Field(description="Steps that are done.")
    total_steps: int = Field(description="Steps in all.")
    percent: int = Field(description="Share that is done.")
    epoch: float | None = Field(None, description="Passes over the training set that are done.")
    loss: float | None = Field(None, description="Training loss of the newest step that was logged.")
    eval_loss: float | None = Field(None, description="Newest loss on dataset.validation.")
    learning_rate: float | None = Field(None, description="Learning rate of that step.")
    tokens_per_second: float | None = Field(None, description="Over all processes.")
    estimated_remaining_seconds: int | None = Field(
        None, description="Until the last step, at the speed of this attempt."
    )
    estimated_remaining: Line | None = Field(
        None, description="The same as a person reads it: 42m. Absent once the run is over."
    )
    last_updated_time: Timestamp


class EndedRun(ApiModel):
    """What became of an earlier run of this object."""

    run_id: Line = Field(description="spec.runId of that run.")
    phase: Phase = Field(description="Phase in which it ended.")
    reason: Line = Field(description="Reason of its Ready condition.")
    start_time: Timestamp | None = None
    completion_time: Timestamp
    attempts: int = Field(0, description="Attempts in all.")
    retries: int = Field(0, description="Attempts that failed.")
    disruptions: int = Field(0, description="Attempts that the infrastructure ended.")
    result_uri: Line | None = Field(None, description="Folder of its result.")
    storage_uri: Line | None = Field(None, description="Folder of all that it wrote.")


class Usage(ApiModel):
    """What this object used of its namespace's budget in one month (UTC), over all runs and attempts."""

    month: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}$")] = Field(description="YYYY-MM.")
    class_name: Line = Field(description="FineTuneClass whose budget it is.")
    accelerator_seconds: int = Field(0, description="Accelerators times the seconds that their Pods ran.")
    counted_time: Timestamp = Field(description="What ran until then is counted.")


class Result(ApiModel):
    """The tuned model."""

    uri: Line = Field(description="Folder with the adapter (LoRA, QLoRA) or the whole model.")
    base_model_uri: Line = Field(description="The model that it was tuned from.")
    adapter_type: Literal["LoRA", "Full"] = Field(description="What it is: an adapter, or a whole model.")
    step: int = Field(description="Step of the checkpoint that became the result.")
    digest: Line = Field(description="sha256 of the result's manifest.")
    train_loss: FiniteNumber = Field(None, description="Training loss at that step.")
    eval_loss: FiniteNumber = Field(None, description="Loss on dataset.validation at that step.")
    trained_tokens: int | None = Field(None, description="Tokens that were learned from until that step.")
    report_uri: Line | None = Field(None, description="The HTML report of the run.")


class StorageFolder(ApiModel):
    """A folder of the storage that holds runs of this object, and the class that they ran with."""

    uri: Line = Field(description="The folder in which the runs' own folders lie.")
    class_name: Line = Field(description="FineTuneClass by which it was written, and whose reclaimPolicy it goes by.")


class FineTuneJobStatus(KindStatus):
    """What the operator knows of the run."""

    phase: Phase | None = Field(None, description="Where the run stands, in one word.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status is about.")
    class_name: Line | None = Field(
        None,
        description="The FineTuneClass of the run. It stays until the run ends, whichever is the default meanwhile.",
    )
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = Field(None, description="When the run ended, well or badly.")
    run_number: int | None = Field(None, description="Which run of this object it is, counted from 1.")
    run_digest: Line | None = Field(
        None, description="Of the spec and the number; part of the run's folder and of its Jobs' names."
    )
    suspend_time: Timestamp | None = Field(
        None, description="Since when the run is suspended, or waits for a queue's quota or for its namespace's budget."
    )
    suspended_seconds: int = Field(0, description="Time of such waits so far; activeDeadlineSeconds does not count it.")
    storage_uri: Line | None = Field(
        None,
        description="Folder of this run's checkpoints, events and result. From its first attempt on it stays, whatever "
        "becomes of the class.",
    )
    storage_folders: list[StorageFolder] = Field(
        default=[],
        max_length=20,
        json_schema_extra=keyed_by("uri", "className"),
        description="Folders that runs of this object wrote into; its deletion empties those whose class says so.",
    )
    preflight: PreflightStatus | None = None
    dataset: DatasetStatus | None = None
    starting_model: StartingModel | None = None
    model: ModelStatus | None = None
    memory: MemoryEstimate | None = None
    resolved: ResolvedHyperparameters | None = None
    attempt: AttemptStatus | None = None
    progress: Progress | None = None
    checkpoints: list[CheckpointStatus] = Field(default=[], max_length=100, description="Oldest first.")
    corrupt_checkpoints: list[CorruptCheckpoint] = Field(
        default=[], max_length=20, description="Checkpoints that were passed over."
    )
    checkpoint_seconds: FiniteNumber = Field(
        None, description="Longest time from a save's start to its commit; sets the Pods' grace period."
    )
    ended_attempts: list[EndedAttempt] = Field(default=[], max_length=10, description="The last ones, oldest first.")
    history: list[EndedRun] = Field(default=[], max_length=10, description="Earlier runs, oldest first.")
    usage: Usage | None = None
    result: Result | None = None
    failure: FailureStatus | None = None

    @classmethod
    def read(cls, value: Any) -> Self:
        """As for every kind; a run that is over must also say how, or it would begin again."""
        status = super().read(value)
        if status.completion_time is not None and status.phase not in ("Succeeded", "Failed"):
            raise UnreadableStatusError(f"status.phase is {status.phase!r} with a completionTime")
        return status
