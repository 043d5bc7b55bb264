"""FineTuneJob: one model, one dataset, one method; runs again when runId changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, FiniteNumber, Line, Name, Text, Timestamp, cel
from finetune_api.conditions import KindStatus
from finetune_api.sources import DatasetUri, ModelUri

Phase = Literal["Validating", "Queued", "Training", "Retrying", "Suspended", "Succeeded", "Failed"]
AdapterType = Literal["LoRA", "Full"]
Schedule = Literal["Cosine", "Linear", "Constant"]


class Model(ApiModel):
    """The model to start from."""

    uri: ModelUri = Field(description="s3://bucket/folder, or hf://org/name@revision.")


class Method(ApiModel):
    """How to train."""

    type: Literal["SFT"] = Field("SFT", description="SFT: supervised fine-tuning, loss on the assistant's tokens.")


class Adapter(ApiModel):
    """Which weights are trained."""

    type: AdapterType = Field("LoRA", description="LoRA: low-rank adapters. Full: every weight.")
    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, le=4096)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: list[Line] = Field(
        default=["all-linear"], min_length=1, max_length=64, description="Module names, or all-linear."
    )


class Limit(ApiModel):
    """Learn on a subset first: the same seed gives nested subsets."""

    model_config = ConfigDict(
        json_schema_extra=cel(("has(self.examples) != has(self.percent)", "set exactly one of examples and percent"))
    )

    examples: int | None = Field(None, ge=1)
    percent: int | None = Field(None, ge=1, le=100)


class TrainingData(ApiModel):
    """Examples to learn from."""

    uri: DatasetUri = Field(description="s3://bucket/file.jsonl: chat messages or prompt/completion, one JSON a line.")
    limit: Limit | None = None


class ValidationData(ApiModel):
    """Examples to measure on: a file, or a share of the training file."""

    model_config = ConfigDict(
        json_schema_extra=cel(("has(self.uri) != has(self.splitPercent)", "set exactly one of uri and splitPercent"))
    )

    uri: DatasetUri | None = None
    split_percent: int | None = Field(None, ge=1, le=50)


class Dataset(ApiModel):
    """What to learn from, and what to measure on."""

    training: TrainingData
    validation: ValidationData | None = None


class Hyperparameters(ApiModel):
    """Omitted values are chosen from the dataset and the model; status.resolved shows them."""

    epochs: float | None = Field(None, gt=0, le=1000)
    batch_size: int | None = Field(None, ge=1, le=65536, description="Examples a step, over all processes.")
    learning_rate: float | None = Field(None, gt=0, le=1)
    schedule: Schedule | None = None
    warmup_percent: float | None = Field(None, ge=0, le=100)
    weight_decay: float | None = Field(None, ge=0, le=1)
    max_length: int | None = Field(None, ge=8, le=1048576, description="Tokens; longer examples are truncated.")
    packing: bool | None = None
    seed: int | None = Field(None, ge=0, le=4294967295)


class Parallelism(ApiModel):
    """One Pod a node; each runs processesPerNode ranks."""

    nodes: int = Field(1, ge=1, le=1024)
    processes_per_node: int = Field(1, ge=1, le=64)
    strategy: Literal["DDP", "FSDP"] = Field(
        "DDP", description="DDP: each process has the whole model. FSDP: weights and optimizer are sharded (FSDP2)."
    )


class Best(ApiModel):
    """Which checkpoint becomes the result."""

    metric: Literal["evalLoss", "trainLoss"] = "evalLoss"
    goal: Literal["Minimize", "Maximize"] = "Minimize"


class Checkpoints(ApiModel):
    """How often to save, and what to keep."""

    every_steps: int | None = Field(None, ge=1, description="Omitted: a tenth of the run, 10 steps at least.")
    keep: int = Field(3, ge=1, le=100, description="Newest checkpoints kept; the best is always kept.")
    best: Best | None = Field(None, description="Omitted: the last step is the result.")
    start_over_if_corrupt: bool = Field(
        False,
        description="When there are checkpoints, but none is good: true starts over, false fails (CheckpointCorrupt).",
    )


CHANGEABLE_WITHIN_A_RUN = frozenset({"suspend", "ttlSecondsAfterFinished", "runId"})


def _a_change_is_a_new_run(schema: dict[str, Any]) -> None:
    """CEL: within a run every field but the changeable ones stays what it was."""
    unchanged = " && ".join(
        f"(has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
        for field in schema["properties"]
        if field not in CHANGEABLE_WITHIN_A_RUN
    )
    schema |= cel(
        (
            f"self.runId != oldSelf.runId || ({unchanged})",
            "a change of spec is a new run: change spec.runId too (only suspend and ttlSecondsAfterFinished may "
            "change within a run)",
        ),
        (
            "!has(self.checkpoints) || !has(self.checkpoints.best) || self.checkpoints.best.metric != 'evalLoss' "
            "|| has(self.dataset.validation)",
            "checkpoints.best by evalLoss needs dataset.validation",
        ),
        (
            "!has(self.hyperparameters.batchSize) || "
            "self.hyperparameters.batchSize % (self.parallelism.nodes * self.parallelism.processesPerNode) == 0",
            "hyperparameters.batchSize must be a multiple of parallelism.nodes * parallelism.processesPerNode",
        ),
    )


class FineTuneJobSpec(ApiModel):
    """A fine-tuning run. Any change but of suspend and ttlSecondsAfterFinished must change runId too."""

    model_config = ConfigDict(json_schema_extra=_a_change_is_a_new_run)

    class_name: Name | None = Field(None, description="FineTuneClass; omitted: the default class.")
    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)] = (
        Field("1", description="Change it to run again, alone or together with anything else.")
    )
    suspend: bool = Field(False, description="true stops the Pods; false goes on from the newest checkpoint.")
    model: Model
    method: Method = Method()
    adapter: Adapter = Adapter()
    dataset: Dataset
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Parallelism = Parallelism()
    checkpoints: Checkpoints = Checkpoints()
    retry_limit: int = Field(3, ge=0, le=100, description="Failures of training; disruptions never count.")
    active_deadline_seconds: int | None = Field(None, ge=1, le=LONGEST_SECONDS)
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=LONGEST_SECONDS, description="Removes the Pods this long after the end; never this object."
    )


class DatasetError(ApiModel):
    """One broken line, in the words of OpenAI's validator."""

    file: Literal["training", "validation"]
    line: int = Field(description="Counted from 1.")
    message: Line


class FileStatistics(ApiModel):
    """Counts of one file, after limit and split."""

    examples: int
    tokens: int
    max_tokens: int = Field(description="Tokens of the longest example.")
    truncated: int = Field(0, description="Examples longer than maxLength.")


class DatasetStatus(ApiModel):
    """What preflight found in the dataset."""

    format: Literal["Chat", "PromptCompletion"] | None = None
    training: FileStatistics | None = None
    validation: FileStatistics | None = None
    error_count: int = 0
    errors: list[DatasetError] = Field(default=[], max_length=20, description="The first broken lines.")
    warnings: list[Line] = Field(default=[], max_length=20)


class ModelStatus(ApiModel):
    """What preflight found in the model."""

    architecture: Line
    parameters: int | None = None
    context_length: int


class ResolvedHyperparameters(ApiModel):
    """The values that the run uses: spec, completed by the automatic rules."""

    epochs: float
    batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup_percent: float
    weight_decay: float
    max_length: int
    packing: bool
    seed: int
    total_steps: int
    checkpoint_every_steps: int


class MemoryEstimate(ApiModel):
    """Bytes that one process needs on its accelerator, by the rules in docs/explanation/preflight.md."""

    weights: int
    adapter: int = Field(0, description="Weights of the adapter, in the precision that they are trained in.")
    gradients: int
    optimizer: int
    activations: int
    total: int
    accelerator: int | None = Field(None, description="Memory of one accelerator, if the class says it.")


class Progress(ApiModel):
    """The newest report of rank 0."""

    step: int
    total_steps: int
    percent: int
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    estimated_remaining_seconds: int | None = None
    last_updated_time: Timestamp


class PreflightStatus(ApiModel):
    """Which preflight try stands, and when the next one starts if it failed."""

    try_number: int = Field(1, alias="try")
    job_name: Name
    succeeded: bool | None = None
    retry_time: Timestamp | None = None


class AttemptStatus(ApiModel):
    """The attempt that runs, or ran last."""

    number: int
    job_name: Name
    class_generation: int
    retries: int = Field(0, description="Attempts that failed so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Attempts lost to the infrastructure; never count.")
    start_time: Timestamp
    pods_start_time: Timestamp | None = Field(None, description="When the first of its Pods began to run.")
    active_deadline_seconds: int | None = Field(
        None, description="The deadline that it runs with: the spec's, else what the class said when it started."
    )
    disrupted: bool = Field(False, description="Whether the infrastructure ended this attempt.")
    next_time: Timestamp | None = Field(None, description="When the next attempt starts, if this one ended early.")


AttemptOutcome = Literal["Succeeded", "Failed", "Disrupted", "Suspended", "Superseded"]


class EndedAttempt(ApiModel):
    """How an earlier attempt ended."""

    number: int
    outcome: AttemptOutcome
    reason: Line | None = Field(
        None, description="Failed: the diagnosis. Disrupted: who ended it (PreemptionByScheduler, NodeLost, ...)."
    )
    message: Line | None = Field(None, description="What happened.")
    start_time: Timestamp
    end_time: Timestamp
    step: int | None = Field(None, description="The last step that it reported.")


class EndedRun(ApiModel):
    """What became of an earlier run of this object."""

    run_id: Line
    phase: Phase
    reason: Line
    start_time: Timestamp | None = None
    completion_time: Timestamp
    attempts: int = 0
    retries: int = 0
    disruptions: int = 0
    result_uri: Line | None = None
    storage_uri: Line | None = None


class Usage(ApiModel):
    """What this object used of its namespace's budget in one month (UTC), over all runs and attempts."""

    month: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}$")]
    class_name: Line = Field(description="FineTuneClass whose budget it is.")
    accelerator_seconds: int = Field(0, description="Accelerators times the seconds that their Pods ran.")
    counted_time: Timestamp = Field(description="What ran until then is counted.")


class CheckpointStatus(ApiModel):
    """A committed checkpoint."""

    step: int
    uri: Line
    metric: FiniteNumber = Field(None, description="Value of checkpoints.best.metric, if it was measured.")
    size: int | None = Field(None, description="Bytes.")
    committed_time: Timestamp | None = None


class CorruptCheckpoint(ApiModel):
    """A checkpoint whose files are not what its manifest says; it was passed over."""

    step: int
    message: Line


class Result(ApiModel):
    """The tuned model."""

    uri: Line = Field(description="Folder with the adapter (LoRA) or the whole model (Full).")
    base_model_uri: Line
    adapter_type: AdapterType
    step: int
    digest: Line = Field(description="sha256 of the result's manifest.")
    train_loss: FiniteNumber = None
    eval_loss: FiniteNumber = None
    trained_tokens: int | None = None
    report_uri: Line | None = Field(None, description="The HTML report of the run.")


class FailureStatus(ApiModel):
    """The diagnosis of the newest failure."""

    reason: Line
    message: Text
    pod: Line | None = None
    rank: int | None = None
    suggestion: Line | None = Field(None, description="Which field to change, and to what.")
    log: Text | None = Field(None, description="The last lines of the Pod's log.")


class FineTuneJobStatus(KindStatus):
    """What the operator knows of the run."""

    phase: Phase | None = None
    run_id: Line | None = None
    class_name: Line | None = None
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    suspend_time: Timestamp | None = Field(
        None, description="Since when the run is suspended, or waits for a queue's quota or for its namespace's budget."
    )
    suspended_seconds: int = Field(0, description="Time of such waits so far; activeDeadlineSeconds does not count it.")
    storage_uri: Line | None = Field(None, description="Folder of this run's checkpoints, events and result.")
    preflight: PreflightStatus | None = None
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    memory: MemoryEstimate | None = None
    resolved: ResolvedHyperparameters | None = None
    attempt: AttemptStatus | None = None
    progress: Progress | None = None
    checkpoints: list[CheckpointStatus] = Field(default=[], max_length=100, description="Oldest first.")
    corrupt_checkpoints: list[CorruptCheckpoint] = Field(default=[], max_length=20)
    checkpoint_seconds: FiniteNumber = Field(
        None, description="Longest time from a save's start to its commit; sets the Pods' grace period."
    )
    ended_attempts: list[EndedAttempt] = Field(default=[], max_length=10, description="The last ones, oldest first.")
    history: list[EndedRun] = Field(default=[], max_length=10, description="Earlier runs, oldest first.")
    usage: Usage | None = None
    result: Result | None = None
    failure: FailureStatus | None = None
