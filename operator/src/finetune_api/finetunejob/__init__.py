"""FineTuneJob: one model, one dataset, one method; runs again when runId changes."""

from finetune_api.finetunejob.adapter import Adapter, AdapterType, Freeze
from finetune_api.finetunejob.attempts import (
    AttemptOutcome,
    AttemptState,
    AttemptStatus,
    Disruption,
    EndedAttempt,
    FailureStatus,
    PreflightStatus,
)
from finetune_api.finetunejob.checkpoints import Best, Checkpoints, CheckpointStatus, CorruptCheckpoint
from finetune_api.finetunejob.dataset import (
    ConfigMapKeys,
    Dataset,
    DatasetFormat,
    DatasetSource,
    KeepOrDrop,
    Limit,
    Prepare,
    TrainingData,
    ValidationData,
)
from finetune_api.finetunejob.findings import (
    MOST_WARNINGS,
    DatasetError,
    DatasetStatus,
    Dropped,
    FileStatistics,
    MemoryEstimate,
    ModelStatus,
)
from finetune_api.finetunejob.hyperparameters import EarlyStopping, Hyperparameters, ResolvedHyperparameters, Schedule
from finetune_api.finetunejob.method import DPO, SFT, Method, MethodType
from finetune_api.finetunejob.spec import CHANGEABLE_WITHIN_A_RUN, FineTuneJobSpec, Model, Parallelism
from finetune_api.finetunejob.status import EndedRun, FineTuneJobStatus, Phase, Progress, Result, StartingModel, Usage

__all__ = [
    "CHANGEABLE_WITHIN_A_RUN",
    "DPO",
    "MOST_WARNINGS",
    "SFT",
    "Adapter",
    "AdapterType",
    "AttemptOutcome",
    "AttemptState",
    "AttemptStatus",
    "Best",
    "CheckpointStatus",
    "Checkpoints",
    "ConfigMapKeys",
    "CorruptCheckpoint",
    "Dataset",
    "DatasetError",
    "DatasetFormat",
    "DatasetSource",
    "DatasetStatus",
    "Disruption",
    "Dropped",
    "EarlyStopping",
    "EndedAttempt",
    "EndedRun",
    "FailureStatus",
    "FileStatistics",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "Freeze",
    "Hyperparameters",
    "KeepOrDrop",
    "Limit",
    "MemoryEstimate",
    "Method",
    "MethodType",
    "Model",
    "ModelStatus",
    "Parallelism",
    "Phase",
    "PreflightStatus",
    "Prepare",
    "Progress",
    "ResolvedHyperparameters",
    "Result",
    "Schedule",
    "StartingModel",
    "TrainingData",
    "Usage",
    "ValidationData",
]
