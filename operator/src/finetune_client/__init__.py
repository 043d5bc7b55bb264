"""A Python client of finetune-operator, for notebooks and scripts: docs/how-to/use-from-python.md."""

from finetune_client.aio.client import AsyncFineTuneClient
from finetune_client.aio.deployment import AsyncModelDeployment
from finetune_client.aio.runs import AsyncEvaluation, AsyncFineTuneJob
from finetune_client.errors import (
    AlreadyExistsError,
    ApiError,
    DeletedError,
    DifferentSpecError,
    FineTuneError,
    ForbiddenError,
    InvalidSpecError,
    MissingPackageError,
    NoConnectionError,
    NoResultError,
    NotFoundError,
    RunError,
    RunFailedError,
    StalledError,
    StorageError,
    WaitTimeoutError,
)
from finetune_client.gitops_warning import GitOpsWarning
from finetune_client.results.metrics import Metrics
from finetune_client.results.report import Report
from finetune_client.results.storage import StorageOptions
from finetune_client.sync.client import FineTuneClient
from finetune_client.sync.deployment import ModelDeployment
from finetune_client.sync.runs import Evaluation, FineTuneJob
from finetune_client.waiting import Progress
from finetune_view.children import Event

__all__ = [
    "AlreadyExistsError",
    "ApiError",
    "AsyncEvaluation",
    "AsyncFineTuneClient",
    "AsyncFineTuneJob",
    "AsyncModelDeployment",
    "DeletedError",
    "DifferentSpecError",
    "Evaluation",
    "Event",
    "FineTuneClient",
    "FineTuneError",
    "FineTuneJob",
    "ForbiddenError",
    "GitOpsWarning",
    "InvalidSpecError",
    "Metrics",
    "MissingPackageError",
    "ModelDeployment",
    "NoConnectionError",
    "NoResultError",
    "NotFoundError",
    "Progress",
    "Report",
    "RunError",
    "RunFailedError",
    "StalledError",
    "StorageError",
    "StorageOptions",
    "WaitTimeoutError",
]
