"""FineTuneClass: the platform team's settings for every object that uses the class."""

from finetune_api.finetuneclass.models import (
    CatalogueModel,
    ListedModel,
    ModelDeploymentReference,
    OpenAIApi,
    OpenAIModel,
    Prices,
)
from finetune_api.finetuneclass.pods import (
    Accelerator,
    AdditionalResource,
    EnvironmentVariable,
    Hub,
    Images,
    PodMetadata,
    PreflightPods,
    PreflightResources,
    Resources,
    RoleAccelerator,
    RolePods,
    RoleResources,
)
from finetune_api.finetuneclass.scheduling import GangTopology, NodeRequirement, RoleScheduling, Scheduling, Toleration
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
    "AdditionalResource",
    "AllowedSources",
    "CatalogueModel",
    "EnvironmentVariable",
    "FineTuneClassSpec",
    "FineTuneClassStatus",
    "GangTopology",
    "Hub",
    "Images",
    "Limits",
    "ListedModel",
    "ModelDeploymentReference",
    "NodeRequirement",
    "OpenAIApi",
    "OpenAIModel",
    "PodMetadata",
    "PreflightPods",
    "PreflightResources",
    "Prices",
    "Resources",
    "RoleAccelerator",
    "RolePods",
    "RoleResources",
    "RoleScheduling",
    "Scheduling",
    "ServerSideEncryption",
    "Storage",
    "Toleration",
]
