"""FineTuneClass: the platform team's settings for every object that uses the class."""

from finetune_api.finetuneclass.models import (
    ModelDeploymentReference,
    ModelEndpoint,
    OpenAIApi,
    OpenAIModel,
    Prices,
)
from finetune_api.finetuneclass.pods import (
    Accelerator,
    Images,
    PodMetadata,
    PreflightPods,
    PreflightResources,
    Resources,
)
from finetune_api.finetuneclass.scheduling import RoleScheduling, Scheduling, Toleration
from finetune_api.finetuneclass.spec import (
    DEFAULT_CLASS_ANNOTATION,
    AllowedSources,
    FineTuneClassSpec,
    FineTuneClassStatus,
    Limits,
)
from finetune_api.finetuneclass.storage import KMS, ServerSideEncryption, Storage

__all__ = [
    "DEFAULT_CLASS_ANNOTATION",
    "KMS",
    "Accelerator",
    "AllowedSources",
    "FineTuneClassSpec",
    "FineTuneClassStatus",
    "Images",
    "Limits",
    "ModelDeploymentReference",
    "ModelEndpoint",
    "OpenAIApi",
    "OpenAIModel",
    "PodMetadata",
    "PreflightPods",
    "PreflightResources",
    "Prices",
    "Resources",
    "RoleScheduling",
    "Scheduling",
    "ServerSideEncryption",
    "Storage",
    "Toleration",
]
