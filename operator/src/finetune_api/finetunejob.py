"""FineTuneJob: one model, one dataset, one method; runs again when runId changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import (
    LONGEST_SECONDS,
    ApiModel,
    ConfigMapKey,
    ConfigMapName,
    FiniteNumber,
    Line,
    LocalObjectReference,
    Name,
    Text,
    Timestamp,
    cel,
)
from finetune_api.conditions import KindStatus, UnreadableStatusError
from finetune_api.sources import DatasetUri, ModelUri

Phase = Literal["Validating", "Queued", "Training", "Retrying", "Suspended", "Succeeded", "Failed"]
MethodType = Literal["SFT", "DPO"]
AdapterType = Literal["LoRA", "QLoRA", "Full"]
Schedule = Literal["Cosine", "Linear", "Constant"]
MOST_WARNINGS = 20
DatasetFormat = Literal["Chat", "PromptCompletion", "Preference"]
KeepOrDrop = Literal["Keep", "Drop"]


class Model(ApiModel):
    """The model to start from."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.uri) != has(self.fineTuneJobRef)", "set exactly one of uri and fineTuneJobRef")
        )
    )

    uri: ModelUri | None = Field(None, description="s3://bucket/folder, or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(
        None, description="Go on from the result of this FineTuneJob, as it is when the run starts."
    )


class SFT(ApiModel):
    """Supervised fine-tuning."""

    prompt_loss_weight: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss on the prompt's tokens; the assistant's count 1."
    )


class DPO(ApiModel):
    """Direct preference optimization: https://arxiv.org/abs/2305.18290."""

    beta: float | None = Field(
        None, gt=0, le=2, description="How strongly the model is held to the one that it starts from. Omitted: 0.1."
    )
    loss_type: Literal["Sigmoid", "Hinge", "IPO"] = "Sigmoid"


class Method(ApiModel):
    """How to train."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.sft) || self.type == 'SFT'", "sft needs type SFT"),
            ("!has(self.dpo) || self.type == 'DPO'", "dpo needs type DPO"),
        )
    )

    type: MethodType = Field(
        "SFT",
        description="SFT: supervised fine-tuning, loss on the assistant's tokens. DPO: on pairs of a preferred and a "
        "rejected answer.",
    )
    sft: SFT | None = None
    dpo: DPO | None = None


class Freeze(ApiModel):
    """Weights that stay as they are."""

    layers: int = Field(0, ge=0, le=1000, description="The first so many layers.")
    embeddings: bool = Field(False, description="The token embeddings (and the output layer, if it shares them).")


class Adapter(ApiModel):
    """Which weights are trained."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.freeze) || self.type == 'Full'",
                "freeze needs type Full: LoRA leaves the model as it is",
            ),
            ("!has(self.inherited) || self.type != 'Full'", "inherited needs type LoRA: Full merges the adapter"),
            (
                "!has(self.inherited) || self.inherited != 'Merge' || self.type != 'QLoRA'",
                "inherited Merge needs type LoRA: nothing is merged into 4 bits",
            ),
        )
    )

    type: AdapterType = Field(
        "LoRA",
        description="LoRA: low-rank adapters. QLoRA: the same, upon a model that is kept in 4 bits (NF4), on "
        "accelerators. Full: every weight.",
    )
    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, le=4096)
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the adapter's inputs. Weights of experts can't have any.")
    target_modules: list[Line] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Module names, or all-linear: every matrix but embeddings, output layer and routers.",
    )
    inherited: Literal["Continue", "Merge"] | None = Field(
        None,
        description="What becomes of an adapter that model.fineTuneJobRef brings. Continue (the default): it is "
        "trained on, with its own rank, alpha, dropout and target modules. Merge: it is merged into its base, and a "
        "new one is trained; the result is then a whole model.",
    )
    freeze: Freeze | None = None


class Limit(ApiModel):
    """Learn on a subset first: the same seed gives nested subsets."""

    model_config = ConfigDict(
        json_schema_extra=cel(("has(self.examples) != has(self.percent)", "set exactly one of examples and percent"))
    )

    examples: int | None = Field(None, ge=1)
    percent: int | None = Field(None, ge=1, le=100)


class ConfigMapKeys(ApiModel):
    """A ConfigMap of the job's namespace, for a small dataset: each key is a file."""

    name: ConfigMapName
    key: ConfigMapKey | None = Field(None, description="Omitted: every key, in order.")


class DatasetSource(ApiModel):
    """Files of examples; several are one dataset, in the order of their URIs."""

    uri: DatasetUri | None = Field(
        None,
        description="s3://bucket/path, or hf://datasets/org/name@revision/path: a file, a folder (ends with /), or a "
        "glob (* within a folder, ** over folders). JSON Lines (plain, gzip, zstd), Parquet or Arrow.",
    )
    uris: list[DatasetUri] | None = Field(None, min_length=1, max_length=64)
    config_map_ref: ConfigMapKeys | None = None


class TrainingData(DatasetSource):
    """Examples to learn from."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "[has(self.uri), has(self.uris), has(self.configMapRef)].exists_one(given, given)",
                "set exactly one of uri, uris and configMapRef",
            )
        )
    )

    limit: Limit | None = None


class ValidationData(DatasetSource):
    """Examples to measure on: files, or a share of the training set."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "[has(self.uri), has(self.uris), has(self.configMapRef), has(self.splitPercent)]"
                ".exists_one(given, given)",
                "set exactly one of uri, uris, configMapRef and splitPercent",
            )
        )
    )

    split_percent: int | None = Field(None, ge=1, le=50)


class Prepare(ApiModel):
    """What is done about doubtful examples of the training set. All of them are counted in status.dataset anyway."""

    duplicates: KeepOrDrop = Field("Keep", description="Examples that are the same as an earlier one.")
    near_duplicates: KeepOrDrop = Field("Keep", description="Examples whose text is almost that of an earlier one.")
    conflicts: KeepOrDrop = Field("Keep", description="All examples of a prompt that has several answers.")
    leaks: KeepOrDrop = Field("Keep", description="Examples that are (almost) the same as one of the validation set.")
    too_long: Literal["Truncate", "Drop", "Fail"] = Field(
        "Truncate", description="Examples of more tokens than hyperparameters.maxLength, in both sets."
    )


class Dataset(ApiModel):
    """What to learn from, and what to measure on."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("self.prepare.leaks == 'Keep' || has(self.validation)", "prepare.leaks: Drop needs a validation set")
        )
    )

    training: TrainingData
    validation: ValidationData | None = None
    format: DatasetFormat | None = Field(
        None, description="What every line must be; omitted: what the first line of the training set is."
    )
    prepare: Prepare = Prepare()


class EarlyStopping(ApiModel):
    """End the run when evalLoss no longer falls."""

    patience: int = Field(3, ge=1, le=1000, description="So many evaluations in a row without an improvement.")
    min_delta: float = Field(0.0, ge=0, le=1000, description="What evalLoss must fall by to count as one.")


class Hyperparameters(ApiModel):
    """Omitted values are chosen from the dataset and the model; status.resolved shows them."""

    epochs: float | None = Field(None, gt=0, le=1000)
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Examples a step, over all processes; where they are packed, rows of maxLength tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, le=1)
    schedule: Schedule | None = None
    warmup_percent: float | None = Field(None, ge=0, le=100)
    weight_decay: float | None = Field(None, ge=0, le=1)
    max_length: int | None = Field(None, ge=8, le=1048576, description="Tokens; longer examples are truncated.")
    packing: bool | None = None
    seed: int | None = Field(None, ge=0, le=4294967295)
    early_stopping: EarlyStopping | None = Field(
        None, description="The best checkpoint becomes the result, unless checkpoints.best says otherwise."
    )


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
    best: Best | None = Field(
        None, description="Omitted: the last step is the result (with earlyStopping: the best by evalLoss)."
    )
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
        (
            "!has(self.hyperparameters.earlyStopping) || has(self.dataset.validation)",
            "hyperparameters.earlyStopping needs dataset.validation",
        ),
        (
            "self.method.type == 'SFT' || !has(self.hyperparameters.packing) || !self.hyperparameters.packing",
            "hyperparameters.packing needs method.type SFT",
        ),
        (
            "self.method.type != 'DPO' || self.parallelism.strategy != 'FSDP'",
            "method.type DPO needs parallelism.strategy DDP",
        ),
        (
            "self.adapter.type != 'QLoRA' || self.parallelism.strategy != 'FSDP'",
            "adapter.type QLoRA needs parallelism.strategy DDP",
        ),
        (
            "!has(self.adapter.inherited) || has(self.model.fineTuneJobRef)",
            "adapter.inherited needs model.fineTuneJobRef",
        ),
        (
            "!has(self.dataset.format) || (self.method.type == 'DPO') == (self.dataset.format == 'Preference')",
            "method DPO learns from dataset.format Preference, and only it does",
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
    uri: Line | None = Field(None, description="Which file, where the set has several.")
    line: int = Field(description="Counted from 1.")
    message: Line


class FileStatistics(ApiModel):
    """Counts of one file, after limit and split."""

    examples: int
    tokens: int
    max_tokens: int = Field(description="Tokens of the longest example.")
    truncated: int = Field(0, description="Examples longer than maxLength.")
    rows: int | None = Field(
        None,
        description="What a batch is made of: the examples; or a row for each answer, where the chat template rewrites "
        "earlier turns; or rows of maxLength tokens, where they are packed.",
    )


class Dropped(ApiModel):
    """Training examples that dataset.prepare left out; tooLong counts those of both sets."""

    duplicates: int = 0
    near_duplicates: int = 0
    conflicts: int = 0
    leaks: int = 0
    too_long: int = 0


class DatasetStatus(ApiModel):
    """What preflight found in the dataset."""

    format: DatasetFormat | None = None
    training: FileStatistics | None = None
    validation: FileStatistics | None = None
    dropped: Dropped | None = Field(None, description="Absent: nothing was.")
    error_count: int = 0
    errors: list[DatasetError] = Field(default=[], max_length=20, description="The first broken lines.")
    warnings: list[Line] = Field(default=[], max_length=MOST_WARNINGS)


class ModelStatus(ApiModel):
    """What preflight found in the model."""

    architecture: Line
    parameters: int | None = None
    context_length: int | None = Field(
        None, description="Tokens of the longest sequence that it was made for. Absent: its files name none."
    )


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
    batch_tokens: int | None = Field(
        None, description="Where rows are packed: tokens of a step at most, batchSize rows of maxLength."
    )
    total_steps: int
    checkpoint_every_steps: int
    beta: float | None = Field(None, description="Of DPO.")
    early_stopping: EarlyStopping | None = None


class StartingModel(ApiModel):
    """What model.fineTuneJobRef meant when the run started; later results of that job do not change it."""

    uri: Line = Field(description="Whole model.")
    adapter_uri: Line | None = Field(None, description="Folder of the adapter upon it.")
    digest: Line | None = Field(None, description="sha256 of the result's manifest.")


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


class Disruption(ApiModel):
    """What the infrastructure said of a Pod that it takes away: the Pod is soon gone, and its conditions with it."""

    pod: Line
    reason: Line = Field(description="PreemptionByScheduler, EvictionByEvictionAPI, ...")
    message: Line


class PreflightStatus(ApiModel):
    """Which preflight try stands, and when the next one starts if it failed."""

    try_number: int = Field(1, alias="try")
    job_name: Name
    succeeded: bool | None = None
    retry_time: Timestamp | None = None
    disruption: Disruption | None = Field(None, description="As it was seen first.")


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
    reports_to: Line | None = Field(None, description="Digest of the address that its Pods report to, and of its CA.")
    disrupted: bool = Field(False, description="Whether the infrastructure ended this attempt.")
    disruption: Disruption | None = Field(None, description="As it was seen first.")
    next_time: Timestamp | None = Field(None, description="When the next attempt starts, if this one ended early.")


AttemptOutcome = Literal["Succeeded", "Failed", "Disrupted", "Suspended", "Superseded", "Replaced"]


class EndedAttempt(ApiModel):
    """How an earlier attempt ended."""

    number: int
    outcome: AttemptOutcome
    reason: Line | None = Field(
        None,
        description="Failed: the diagnosis. Disrupted: who ended it (PreemptionByScheduler, NodeLost, ...). Replaced: "
        "what had changed before it started.",
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

    uri: Line = Field(description="Folder with the adapter (LoRA, QLoRA) or the whole model.")
    base_model_uri: Line
    adapter_type: Literal["LoRA", "Full"] = Field(description="What it is: an adapter, or a whole model.")
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
    completion_time: Timestamp | None = Field(None, description="When the run ended, well or badly.")
    run_number: int | None = Field(None, description="Which run of this object it is, counted from 1.")
    run_digest: Line | None = Field(
        None, description="Of the spec and the number; part of the run's folder and of its Jobs' names."
    )
    suspend_time: Timestamp | None = Field(
        None, description="Since when the run is suspended, or waits for a queue's quota or for its namespace's budget."
    )
    suspended_seconds: int = Field(0, description="Time of such waits so far; activeDeadlineSeconds does not count it.")
    storage_uri: Line | None = Field(None, description="Folder of this run's checkpoints, events and result.")
    preflight: PreflightStatus | None = None
    dataset: DatasetStatus | None = None
    starting_model: StartingModel | None = None
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

    @classmethod
    def read(cls, value: Any) -> Self:
        """As for every kind; a run that is over must also say how, or it would begin again."""
        status = super().read(value)
        if status.completion_time is not None and status.phase not in ("Succeeded", "Failed"):
            raise UnreadableStatusError(f"status.phase is {status.phase!r} with a completionTime")
        return status
