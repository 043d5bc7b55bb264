"""The run configuration: what the operator hands to a Pod as run.json, with nothing left to guess.

Five commands of `finetune-trainer` read it, each its own model: preflight, train, evaluate, fetch, delete.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line, Name
from finetune_api.evaluation import Generation, Grader
from finetune_api.finetuneclass import ServerSideEncryption
from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    Hyperparameters,
    Method,
    Parallelism,
    ResolvedHyperparameters,
)

RUN_CONFIG_DIRECTORY = "/etc/finetune"
RUN_CONFIG_PATH = f"{RUN_CONFIG_DIRECTORY}/run.json"
PROGRESS_CA_PATH = f"{RUN_CONFIG_DIRECTORY}/progress-ca.crt"
STORAGE_CREDENTIALS_DIRECTORY = "/var/run/secrets/finetune.dev/storage"
"""The class's Secret, mounted: a file for each key (AWS_ACCESS_KEY_ID, ...), which the kubelet keeps fresh."""
PROGRESS_TOKEN_PATH = "/var/run/secrets/finetune.dev/token"  # noqa: S105
DATASET_DIRECTORY = "/var/run/finetune.dev/datasets"
"""Where ConfigMaps of a dataset are mounted: below training/ and validation/, a file for each key."""
SERVED_MODEL_DIRECTORY = "/models"
SERVING_PORT = 8000
RENDEZVOUS_PORT = 29500
METRICS_PORT = 9400


class StorageConfig(ApiModel):
    """How to reach the storage.

    Credentials are the files in STORAGE_CREDENTIALS_DIRECTORY, else AWS's default chain (AWS_*, a pod identity), and
    never in here.
    """

    endpoint: Line | None = None
    region: Line
    path_style: bool = False
    ca_bundle: str | None = Field(None, description="PEM certificates to trust.")
    server_side_encryption: ServerSideEncryption | None = None
    outage_tolerance_seconds: int = 600
    local_folders: bool = Field(False, description="Whether file:// locations may be used: on a laptop only.")


def run_folder(run_id: str, uid: str) -> str:
    """Name of a run's folder: <runId>-<uid>.

    The uid's first part keeps an object from adopting (or removing) what another one of the same name left there.
    """
    return f"{run_id}-{uid.partition('-')[0]}"


def is_run_folder(name: str, uid: str) -> bool:
    """Whether this is the folder of a run of the object with this uid."""
    return name.endswith(run_folder("", uid)) and name != run_folder("", uid)


class JobIdentity(ApiModel):
    """Whose run this is."""

    namespace: Line
    name: Line
    uid: Line
    run_id: Line


class ModelSource(ApiModel):
    """A model to load: a whole model, or an adapter upon one."""

    uri: Line = Field(description="Whole model: s3:// folder or hf:// repository.")
    adapter_uri: Line | None = Field(None, description="Folder of a peft adapter for it.")
    digest: Line | None = Field(None, description="sha256 of the manifest of what a job made; None: not ours.")


class PreflightRun(ApiModel):
    """Read everything that a run needs, before a GPU is asked for."""

    command: Literal["Preflight"] = "Preflight"
    job: JobIdentity
    storage: StorageConfig
    output_uri: Line = Field(description="s3:// folder of this run; preflight writes, reads and lists below it.")
    model: ModelSource
    method: Method
    adapter: Adapter = Adapter()
    dataset: Dataset
    allowed_datasets: list[Line] = Field(default=["*"], description="What the class allows; files are checked again.")
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Parallelism = Parallelism()
    continued: bool = Field(False, description="Whether the model is the result of another job.")
    allowed_images: list[Line] = Field(
        default=[], description="Patterns of the s3:// and https:// URLs that images of the dataset may have."
    )
    accelerator_memory: int | None = Field(None, description="Bytes of one accelerator.")
    seed: int


class ProgressTarget(ApiModel):
    """Where rank 0 reports to: HTTPS, bearer token in PROGRESS_TOKEN_PATH, CA in PROGRESS_CA_PATH."""

    url: Line


class TrainRun(ApiModel):
    """One attempt at training. It resumes from the newest committed checkpoint below output_uri."""

    command: Literal["Train"] = "Train"
    job: JobIdentity
    attempt: int
    storage: StorageConfig
    output_uri: Line
    model: ModelSource
    method: Method
    adapter: Adapter
    dataset: Dataset
    allowed_datasets: list[Line] = Field(default=["*"], description="What the class allows; files are checked again.")
    allowed_images: list[Line] = Field(
        default=[], description="Patterns of the s3:// and https:// URLs that images of the dataset may have."
    )
    hyperparameters: ResolvedHyperparameters
    parallelism: Parallelism
    checkpoints: Checkpoints
    progress: ProgressTarget | None = None
    metrics_port: int | None = Field(
        METRICS_PORT, description="Where the first process of each node serves Prometheus; None: nowhere."
    )


class NamedModel(ApiModel):
    """A model under the name that results call it by (evaluation.BASELINE for the baseline)."""

    name: Line
    model: ModelSource


class EvaluateRun(ApiModel):
    """Generate on every example with every model, grade, and report scores."""

    command: Literal["Evaluate"] = "Evaluate"
    job: JobIdentity
    storage: StorageConfig
    output_uri: Line
    models: list[NamedModel]
    dataset_uri: Line
    allowed_datasets: list[Line] = Field(default=["*"], description="What the class allows; files are checked again.")
    allowed_images: list[Line] = Field(
        default=[], description="Patterns of the s3:// and https:// URLs that images of the dataset may have."
    )
    limit_examples: int | None = None
    graders: list[Grader]
    generation: Generation


class DeleteRun(ApiModel):
    """Remove what a deleted FineTuneJob has in the storage: everything below the folders of its runs (run_folder)."""

    command: Literal["Delete"] = "Delete"
    job: JobIdentity
    storage: StorageConfig
    folder_uris: list[Line] = Field(description="s3:// folders <prefix>/<namespace>/<name>, which hold those of runs.")


class FetchRun(ApiModel):
    """Bring a model to SERVED_MODEL_DIRECTORY/<name>; an adapter is merged into its base."""

    command: Literal["Fetch"] = "Fetch"
    storage: StorageConfig
    model: ModelSource
    name: Name
