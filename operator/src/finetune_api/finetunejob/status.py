"""The status of a FineTuneJob."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from finetune_api.base import ApiModel, FiniteNumber, Line, Timestamp
from finetune_api.dataset_reference import PinnedRevisions
from finetune_api.finetunejob.attempts import AttemptStatus, EndedAttempt, PreflightStatus
from finetune_api.finetunejob.checkpoints import CheckpointStatus, CorruptCheckpoint
from finetune_api.finetunejob.findings import DatasetFindings, MemoryEstimate, ModelStatus, RewardCalibration
from finetune_api.finetunejob.hyperparameters import ResolvedHyperparameters
from finetune_api.lifecycle import FailureStatus, RunStatus
from finetune_api.lifecycle.unreadable import UnreadableField, unknown_end

Phase = Literal["Validating", "Queued", "Training", "Retrying", "Suspended", "Succeeded", "Failed", "Cancelled"]


class StartingModel(ApiModel):
    """A model, as it was when the run started."""

    uri: Line = Field(description="URI of the full model.")
    adapter_uri: Line | None = Field(None, description="Folder of the adapter on top of it.")
    digest: Line | None = Field(None, description="SHA-256 of the result's manifest.")


class Progress(ApiModel):
    """Most recent progress report of rank 0; after success, step, epoch, losses and rewards of the result."""

    step: int = Field(description="Completed steps.")
    total_steps: int = Field(description="Total number of steps.")
    percent: int = Field(description="Completed steps in percent.")
    epoch: float | None = Field(None, description="Completed passes over the training set.")
    loss: float | None = Field(None, description="Training loss of the most recently logged step.")
    eval_loss: float | None = Field(None, description="Most recent loss on dataset.validation.")
    reward: float | None = Field(None, description="RFT: mean reward of the most recently logged step.")
    valid_reward: float | None = Field(None, description="RFT: most recent mean reward on dataset.validation.")
    reward_gap: float | None = Field(
        None, description="RFT: training reward since the evaluation before, minus validReward."
    )
    completion_growth: float | None = Field(
        None, description="RFT: tokens of a completion since then, as a multiple of those at first."
    )
    eval_step: int | None = Field(
        None, description="Step of the most recent evaluation; absent if the sender does not say."
    )
    learning_rate: float | None = Field(None, description="Learning rate at that step.")
    not_finite: list[Line] | None = Field(
        None, description="Which of these became NaN or infinite; they have no value above."
    )
    tokens_per_second: float | None = Field(None, description="Tokens per second, over all processes.")
    estimated_remaining_seconds: int | None = Field(
        None, description="Estimated seconds until the last step, at the speed of this attempt."
    )
    estimated_remaining: Line | None = Field(
        None, description="The same in human-readable form, such as 42m. Absent once the run is over."
    )
    last_updated_time: Timestamp


class EndedRun(ApiModel):
    """An earlier run of this object."""

    run_id: Line = Field(description="spec.runId of that run.")
    phase: Phase = Field(description="Phase in which it ended.")
    reason: Line = Field(description="Reason of its Ready condition.")
    start_time: Timestamp | None = None
    completion_time: Timestamp
    attempts: int = Field(0, description="Total number of attempts.")
    retries: int = Field(0, description="Failed attempts.")
    disruptions: int = Field(0, description="Attempts ended by the infrastructure.")
    result_uri: Line | None = Field(None, description="Folder of its result.")
    storage_uri: Line | None = Field(None, description="Folder of everything that it wrote.")


class Usage(ApiModel):
    """Use of the namespace's budget in one month (UTC), over all runs and attempts."""

    month: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}$")] = Field(description="YYYY-MM.")
    class_name: Line = Field(description="FineTuneClass that defines the budget.")
    accelerator_seconds: int = Field(0, description="Accelerators multiplied by the seconds that their Pods ran.")
    counted_time: Timestamp = Field(description="Time up to which usage has been counted.")


class Result(ApiModel):
    """The tuned model."""

    uri: Line = Field(description="Folder with the adapter (LoRA, QLoRA) or the full model.")
    base_model_uri: Line = Field(description="The model that was fine-tuned.")
    adapter_type: Literal["LoRA", "Full"] = Field(description="LoRA: an adapter. Full: a full model.")
    step: int = Field(description="Step of the checkpoint that became the result.")
    digest: Line = Field(description="SHA-256 of the result's manifest.")
    train_loss: FiniteNumber = Field(None, description="Training loss at that step.")
    train_reward: FiniteNumber = Field(None, description="RFT: mean reward of the answers of that step.")
    eval_loss: FiniteNumber = Field(None, description="Loss on dataset.validation at that step.")
    valid_reward: FiniteNumber = Field(None, description="RFT: mean reward on dataset.validation at that step.")
    trained_tokens: int | None = Field(None, description="Number of tokens trained on up to that step.")
    report_uri: Line | None = Field(None, description="URI of the run's HTML report.")


class StorageFolder(ApiModel):
    """A storage folder that holds runs of this object, and their class."""

    uri: Line = Field(description="Folder that contains the folders of the runs.")
    class_name: Line = Field(description="FineTuneClass of the runs, whose reclaimPolicy applies.")
    endpoint: Line | None = Field(None, description="URL of its S3 endpoint; empty: AWS.")


class StorageAccess(ApiModel):
    """How the run's Pods reach an S3 endpoint that the class no longer names."""

    region: Line | None = Field(None, description="Region used to sign requests.")
    path_style: bool | None = Field(None, description="Whether addresses are path-style.")
    credentials_secret_name: Line | None = Field(None, description="Name of the Secret with the credentials.")
    service_account_name: Line | None = Field(None, description="Name of the service account with the pod identity.")


class FineTuneJobStatus(RunStatus):
    """State and results of the run."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status describes.")
    class_name: Line | None = Field(
        None,
        description="FineTuneClass of the run; stays the same even if another class becomes the default.",
    )
    run_number: int | None = Field(None, description="Number of the run, counting from 1.")
    run_digest: Line | None = Field(
        None, description="Digest of spec and run number; part of the names of the run's folder and Jobs."
    )
    storage_uri: Line | None = Field(
        None,
        description="Folder of this run's checkpoints, events and result. Fixed once preflight has succeeded.",
    )
    storage_endpoint: Line | None = Field(
        None, description="URL of the S3 endpoint that storageUri is at; empty: AWS. Fixed together with storageUri."
    )
    storage_access: StorageAccess | None = Field(
        None, description="How the newest Pods of the run were told to reach storageEndpoint."
    )
    storage_folders: list[StorageFolder] = Field(
        default=[],
        max_length=20,
        description="Folders of this object's runs. On deletion, those whose class has reclaimPolicy Delete are "
        "emptied.",
    )
    more_storage_folders: bool | None = Field(
        None,
        description="True: the runs had more classes or places than storageFolders can hold. Deleting the object then "
        "keeps all of its data, and reports that.",
    )
    preflight: PreflightStatus | None = None
    dataset: DatasetFindings | None = None
    starting_model: StartingModel | None = None
    teacher: StartingModel | None = Field(None, description="Distillation: the model that the run learns from.")
    dataset_revisions: PinnedRevisions | None = Field(None, description="What each datasetRef stands for in this run.")
    model: ModelStatus | None = None
    memory: MemoryEstimate | None = None
    calibration: RewardCalibration | None = None
    resolved: ResolvedHyperparameters | None = None
    attempt: AttemptStatus | None = None
    progress: Progress | None = None
    checkpoints: list[CheckpointStatus] = Field(
        default=[], max_length=100, description="Committed checkpoints, oldest first."
    )
    corrupt_checkpoints: list[CorruptCheckpoint] = Field(
        default=[], max_length=20, description="Checkpoints that were skipped because they are corrupt."
    )
    checkpoint_seconds: FiniteNumber = Field(
        None,
        description="Longest time from the start of a save to its commit; determines the Pods' grace period.",
    )
    ended_attempts: list[EndedAttempt] = Field(
        default=[], max_length=10, description="The most recent attempts that ended, oldest first."
    )
    earlier_attempts_seconds: int = Field(
        0, description="Seconds that the Pods of those attempts ran that endedAttempts holds no longer."
    )
    history: list[EndedRun] = Field(default=[], max_length=10, description="Earlier runs, oldest first.")
    usage: Usage | None = None
    result: Result | None = None
    failure: FailureStatus | None = None

    @classmethod
    def unknown_states(cls, stored: dict[str, Any]) -> list[UnreadableField]:
        """As for every kind. A run that is over must also have a final phase, or it would start again."""
        return unknown_end(stored) or super().unknown_states(stored)
