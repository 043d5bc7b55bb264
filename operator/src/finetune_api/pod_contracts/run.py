"""The run configuration: run.json, which the operator passes to a Pod with every value resolved.

Six commands of `finetune-trainer` read it, each with its own model: preflight, train, evaluate, build-dataset, fetch,
delete.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from finetune_api.base import ApiModel, Line, Name
from finetune_api.dataset import Cleaning, DatasetPart, DatasetSplit, Generate
from finetune_api.dataset_reference import PinnedRevision, PinnedRevisions
from finetune_api.evaluation import GatedSlice, Generation, OnError
from finetune_api.evaluation.benchmarks import Benchmark
from finetune_api.evaluation.safety import Safety, SafetyGate
from finetune_api.finetuneclass import Prices, ServerSideEncryption
from finetune_api.finetuneclass.models import CONCURRENCY, REQUESTS_PER_MINUTE, TIMEOUT_SECONDS
from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    DatasetFormat,
    Hyperparameters,
    Method,
    Parallelism,
    ResolvedHyperparameters,
)
from finetune_api.graders import Grader
from finetune_api.model_usage import Budget
from finetune_api.safety.screening import Screening
from finetune_api.unions import OneOf

RUN_CONFIG_DIRECTORY = "/etc/finetune"
RUN_CONFIG_PATH = f"{RUN_CONFIG_DIRECTORY}/run.json"
PROGRESS_CA_PATH = f"{RUN_CONFIG_DIRECTORY}/progress-ca.crt"
RUN_ANNOTATIONS = {"run.json": "finetune.dev/run", "progress-ca.crt": "finetune.dev/progress-ca"}
"""The annotations of a FineTuneJob's Pods that become files of this folder: a ConfigMap would be one more write.

An Evaluation's run configuration may be larger than annotations may be, 256 KiB in all: it is in a ConfigMap."""
RUN_DIGEST_VARIABLE = "FINETUNE_RUN_DIGEST"
"""The SHA-256 of a run.json from a ConfigMap, in the Pod's own spec: whoever may write ConfigMaps could replace it."""
STORAGE_CREDENTIALS_DIRECTORY = "/var/run/secrets/finetune.dev/storage"
"""Mount point of the class's Secret: one file per key (AWS_ACCESS_KEY_ID, ...), updated by the kubelet."""
PROGRESS_TOKEN_PATH = "/var/run/secrets/finetune.dev/token"  # noqa: S105
HUB_TOKEN_DIRECTORY = "/var/run/secrets/finetune.dev/hub"  # noqa: S105
"""Mount point of the Secret with the key HF_TOKEN, which huggingface_hub reads (HF_TOKEN_PATH)."""
HUB_TOKEN_KEY = "HF_TOKEN"  # noqa: S105
MODEL_KEYS_DIRECTORY = "/var/run/secrets/finetune.dev/models"
"""Mount point of the Secrets of the class's models: a folder by the model's name, with the file API_KEY."""
MODEL_KEY = "API_KEY"
DATASET_DIRECTORY = "/var/run/finetune.dev/datasets"
"""Mount point of a dataset's ConfigMaps: below training/ and validation/, one file per key."""
SERVED_MODEL_DIRECTORY = "/models"
SERVING_PORT = 8000
SERVING_LINGER_SECONDS = 5
"""After SIGTERM, a server still accepts requests for as long: clients and nodes learn of its end only by and by."""
SERVING_DRAIN_SECONDS = 90
"""After that, it completes the answers that it has begun for as long."""
PYTHON_SANDBOX_DIRECTORY = "/var/run/finetune.dev/python"
"""Where the sandbox of Python graders has its Unix socket, which the evaluation connects to."""
PYTHON_SANDBOX_SOCKET = f"{PYTHON_SANDBOX_DIRECTORY}/sandbox.sock"
RENDEZVOUS_PORT = 29500
METRICS_PORT = 9400


class StorageConfig(ApiModel):
    """How to access the storage.

    Credentials are never part of it: they are files in STORAGE_CREDENTIALS_DIRECTORY or come from AWS's default chain
    (AWS_*, a pod identity).
    """

    endpoint: Line | None = None
    region: Line
    path_style: bool = False
    ca_bundle: str | None = Field(None, description="PEM CA certificates to trust.")
    server_side_encryption: ServerSideEncryption | None = None
    outage_tolerance_seconds: int = 600
    credentials_secret_name: Line | None = Field(None, description="Where the keys are from; only named in messages.")
    local_folders: bool = Field(False, description="Whether file:// locations are allowed; only on a laptop.")


def run_folder(run_id: str, uid: str) -> str:
    """Name of a run's folder: <runId>-<uid>.

    The first part of the uid keeps an object from adopting or deleting the data of an earlier one with the same name.
    """
    return f"{run_id}-{uid.partition('-')[0]}"


def is_run_folder(name: str, uid: str) -> bool:
    """Whether this is the folder of a run of the object with this uid."""
    return name.endswith(run_folder("", uid)) and name != run_folder("", uid)


class JobIdentity(ApiModel):
    """The object that the run belongs to."""

    namespace: Line
    name: Line
    uid: Line
    run_id: Line


def _stored(value: Any) -> Any:
    """With sorted keys, and numbers without a fraction as integers."""
    if isinstance(value, dict):
        return {key: _stored(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_stored(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class CheckpointSource(ApiModel):
    """A committed checkpoint: the weights that were trained of a model, and how they were added to it."""

    uri: Line = Field(description="Folder of the checkpoint.")
    step: int = Field(description="Step after which it was saved.")
    digest: Line | None = Field(None, description="SHA-256 of its manifest, if known.")
    adapter: dict[str, Any] = Field(
        default={}, description="spec.adapter of its run.", json_schema_extra={"x-kubernetes-map-type": "atomic"}
    )

    @field_validator("adapter", mode="after")
    @classmethod
    def _as_stored(cls, adapter: dict[str, Any]) -> dict[str, Any]:
        """As the API server gives it back: a ModelDeployment's objects are named after this JSON."""
        stored: dict[str, Any] = _stored(adapter)
        return stored


class ModelSource(ApiModel):
    """A model to load: a full model, or an adapter on top of one, or what a training had made of it by a checkpoint."""

    uri: Line = Field(description="Full model: s3:// folder or hf:// repository.")
    adapter_uri: Line | None = Field(None, description="Folder of a peft adapter for it.")
    digest: Line | None = Field(
        None, description="SHA-256 of the result's manifest, if a FineTuneJob produced the model."
    )
    checkpoint: CheckpointSource | None = Field(
        None,
        exclude_if=lambda checkpoint: checkpoint is None,  # names that are made of this JSON stay what they were
        description="The checkpoint of a training of this model.",
    )

    @property
    def identity(self) -> str | None:
        """What identifies the files of a model that a FineTuneJob made; None: what is at its URI may change."""
        if self.checkpoint is not None:
            # The folder of a checkpoint is written once.
            return self.checkpoint.digest or self.checkpoint.uri
        return self.digest

    @property
    def revision(self) -> str:
        """What distinguishes this model from another at the same URI, if anything does."""
        return self.identity or self.uri


class EndpointConfig(ApiModel):
    """How to ask one model of the class. Its key is never part of it: it is a file in MODEL_KEYS_DIRECTORY."""

    name: Line
    url: Line = Field(description="Base URL of an OpenAI-compatible API.")
    model: Line = Field(description="The requests' `model` field.")
    digest: Line | None = Field(None, description="What tells the model from another one at the same place, if known.")
    secret_name: Line | None = Field(None, description="The Secret that its key is from; None: there is no key.")
    ca_bundle: str | None = Field(None, description="PEM CA certificates to trust.")
    requests_per_minute: int = REQUESTS_PER_MINUTE
    concurrency: int = CONCURRENCY
    timeout_seconds: int = TIMEOUT_SECONDS
    prices: Prices | None = None


class PreflightRun(ApiModel):
    """Checks everything that a run needs before a GPU is requested."""

    command: Literal["Preflight"] = "Preflight"
    job: JobIdentity
    storage: StorageConfig
    output_uri: Line = Field(description="s3:// folder of this run; preflight writes, reads and lists below it.")
    model: ModelSource
    teacher: ModelSource | None = Field(
        None, exclude_if=lambda teacher: teacher is None, description="The model of method.distillation.teacher."
    )
    method: Method
    adapter: Adapter = Adapter()
    dataset: Dataset
    revisions: PinnedRevisions | None = Field(
        None, exclude_if=lambda revisions: revisions is None, description="What each datasetRef of the dataset is."
    )
    allowed_datasets: list[Line] = Field(
        default=["*"], description="Patterns that the class allows, enforced again for each file."
    )
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Parallelism = Parallelism()
    continued: bool = Field(False, description="Whether the model is the result of another job.")
    allowed_images: list[Line] = Field(default=[], description="Patterns of allowed s3:// and https:// URLs of images.")
    accelerator_memory: int | None = Field(None, description="Memory of one accelerator in bytes.")
    on_accelerators: bool = Field(False, description="Whether the class has accelerators.")
    accelerators_per_node: int | None = Field(None, description="Accelerators of each training Pod, if there are any.")
    seed: int
    classifier: EndpointConfig | None = Field(None, description="The model of dataset.screening.classifier.")
    answers_uri: Line | None = Field(None, description="s3:// folder with what the class's models answered before.")


class ProgressTarget(ApiModel):
    """Where rank 0, or an evaluation, reports to: HTTPS, with the bearer token in PROGRESS_TOKEN_PATH and the CA in
    PROGRESS_CA_PATH."""

    url: Line


class TrainRun(ApiModel):
    """One training attempt. It resumes from the newest committed checkpoint below output_uri."""

    command: Literal["Train"] = "Train"
    job: JobIdentity
    attempt: int
    storage: StorageConfig
    output_uri: Line
    model: ModelSource
    teacher: ModelSource | None = Field(
        None, exclude_if=lambda teacher: teacher is None, description="The model of method.distillation.teacher."
    )
    method: Method
    adapter: Adapter
    dataset: Dataset
    revisions: PinnedRevisions | None = Field(
        None, exclude_if=lambda revisions: revisions is None, description="What each datasetRef of the dataset is."
    )
    allowed_datasets: list[Line] = Field(
        default=["*"], description="Patterns that the class allows, enforced again for each file."
    )
    allowed_images: list[Line] = Field(default=[], description="Patterns of allowed s3:// and https:// URLs of images.")
    hyperparameters: ResolvedHyperparameters
    parallelism: Parallelism
    checkpoints: Checkpoints
    progress: ProgressTarget | None = None
    metrics_port: int | None = Field(
        METRICS_PORT, description="Port of the Prometheus metrics of each node's first process; None: no metrics."
    )


class NamedModel(OneOf):
    """What answers the examples, with its name in the results (evaluation.BASELINE for the baseline)."""

    choices = ("model", "endpoint", "outputs_uri")

    name: Line
    model: ModelSource | None = Field(None, description="A model that the Pod loads.")
    endpoint: Line | None = Field(None, description="Name of one of the run's endpoints.")
    outputs_uri: Line | None = Field(None, description="A file with outputs.")


class EvaluateRun(ApiModel):
    """Generates answers for every example with every model, grades them and reports scores."""

    command: Literal["Evaluate"] = "Evaluate"
    job: JobIdentity
    storage: StorageConfig
    output_uri: Line
    models: list[NamedModel]
    dataset_uri: Line
    revision: PinnedRevision | None = Field(
        None,
        exclude_if=lambda revision: revision is None,
        description="What datasetRef is; then dataset_uri is only named in messages.",
    )
    allowed_datasets: list[Line] = Field(
        default=["*"], description="Patterns that the class allows, enforced again for each file."
    )
    allowed_images: list[Line] = Field(default=[], description="Patterns of allowed s3:// and https:// URLs of images.")
    limit_examples: int | None = None
    graders: list[Grader]
    benchmarks: list[Benchmark] = Field(default=[], exclude_if=lambda benchmarks: not benchmarks)
    endpoints: list[EndpointConfig] = Field(
        default=[], description="The models of the class that graders ask, or that answer."
    )
    budget: Budget = Budget()
    run_key: Line = Field("", description="Digest of what is measured: the same for all tries, which share the budget.")
    answers_uri: Line | None = Field(None, description="s3:// folder with what these models answered before.")
    generation: Generation
    cluster_by: Line | None = Field(None, description="Template; examples that render the same text form a cluster.")
    slices: list[Line] = Field(
        default=[], description="Templates; the report also has the scores for each rendered text."
    )
    gated_slices: list[GatedSlice] = Field(
        default=[], description="Slices and graders that gates are about: their scores are reported first."
    )
    safety: Safety | None = None
    safety_gates: list[SafetyGate] = Field(
        default=[], description="What gates are about: these rates are reported first."
    )
    on_error: OnError = "Zero"
    max_errored_percent: float = 5
    progress: ProgressTarget | None = None
    outputs_uri: Line | None = Field(
        None, description="s3:// folder with the outputs that loaded models made in earlier tries of the run."
    )
    nodes: int = Field(1, description="Number of Pods; each has its index from its Indexed Job.")
    python_sandbox: Line | None = Field(
        None, description="Path of the Unix socket of the sandbox that runs Python graders, if there are any."
    )


class DatasetRun(ApiModel):
    """Builds a revision of a Dataset, and commits it below output_uri."""

    command: Literal["BuildDataset"] = "BuildDataset"
    job: JobIdentity
    try_number: int
    storage: StorageConfig
    output_uri: Line
    parts: list[DatasetPart] = Field(description="spec.merge; or spec.source or the prompts alone.")
    allowed_datasets: list[Line] = Field(
        default=["*"], description="Patterns that the class allows, enforced again for each file."
    )
    format: DatasetFormat | None = None
    prepare: Cleaning = Cleaning()
    screening: Screening | None = None
    split: DatasetSplit = DatasetSplit()
    seed: int
    classifier: EndpointConfig | None = Field(None, description="The model of screening.classifier.")
    answers_uri: Line | None = Field(None, description="s3:// folder with what the class's models answered before.")
    generate: Generate | None = Field(None, exclude_if=lambda generate: generate is None)
    prompts_revision: PinnedRevision | None = Field(
        None, exclude_if=lambda revision: revision is None, description="What generate.prompts.datasetRef is."
    )
    endpoints: list[EndpointConfig] = Field(
        default=[],
        exclude_if=lambda endpoints: not endpoints,
        description="The models of the class that generate asks: its teacher, and those of graders.",
    )
    allowed_images: list[Line] = Field(
        default=[],
        exclude_if=lambda patterns: not patterns,
        description="Patterns of allowed s3:// and https:// URLs of images of prompts and screened examples.",
    )
    python_sandbox: Line | None = Field(
        None,
        exclude_if=lambda socket: socket is None,
        description="Path of the Unix socket of the sandbox that runs Python graders, if there are any.",
    )


class DeleteRun(ApiModel):
    """Deletes the data of a deleted FineTuneJob: everything below the folders of its runs (run_folder)."""

    command: Literal["Delete"] = "Delete"
    job: JobIdentity
    storage: StorageConfig
    folder_uris: list[Line] = Field(
        description="s3:// folders <prefix>/<namespace>/<name> that contain the folders of runs."
    )


class FetchRun(ApiModel):
    """Downloads a model to SERVED_MODEL_DIRECTORY/<name>; an adapter is merged into its base model."""

    command: Literal["Fetch"] = "Fetch"
    storage: StorageConfig
    model: ModelSource
    name: Name
