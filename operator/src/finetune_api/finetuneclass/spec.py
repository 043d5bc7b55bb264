"""The spec and status of a FineTuneClass: what the platform allows, and provides by default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, cel
from finetune_api.finetuneclass.models import ListedModel, OpenAIApi
from finetune_api.finetuneclass.pods import (
    Accelerator,
    EnvironmentVariable,
    Hub,
    Images,
    PodMetadata,
    PreflightPods,
    Resources,
    RolePods,
)
from finetune_api.finetuneclass.scheduling import Scheduling
from finetune_api.finetuneclass.storage import Storage
from finetune_api.kubernetes_types import SET, keyed_by
from finetune_api.lifecycle import KindStatus

DEFAULT_CLASS_ANNOTATION = "finetune.dev/is-default-class"


class Limits(ApiModel):
    """Upper limits for each object and each namespace."""

    nodes: int = Field(
        8, ge=1, le=1024, description="Maximum spec.parallelism.nodes of a FineTuneJob, spec.nodes of an Evaluation."
    )
    replicas: int = Field(8, ge=1, le=1024, description="Maximum spec.replicas of a ModelDeployment.")
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=LONGEST_SECONDS,
        description="Maximum duration of the run of a FineTuneJob or Evaluation, and the default for those that set no "
        "deadline.",
    )
    accelerator_hours_per_month: int | None = Field(
        None, ge=0, le=10_000_000, description="Accelerator hours available to each namespace per calendar month (UTC)."
    )


SourcePattern = Annotated[
    str,
    StringConstraints(
        pattern=r"^(s3|hf|pvc)://([^*?\[\]]*/)?[^*?\[\]/]*$|^(s3|hf|pvc)://([^*?\[\]]+/)?\*$", max_length=1024
    ),
]
"""A `*` matches everything below a folder: `s3://bucket/models*` would also allow `models-secret/`."""


ImagePattern = Annotated[
    str,
    StringConstraints(pattern=r"^https://(\*|(\*\.)?[^*?\[\]/]+)(/[^*?\[\]]*|/([^*?\[\]]*/)?\*)?$", max_length=1024),
]


class AllowedSources(ApiModel):
    """URIs that jobs may read: an exact URI, or everything below a folder (`s3://bucket/folder/*`).

    `hf://org/name` allows a Hub repository at every revision, `hf://org/name@v1` only at that one.
    """

    models: list[SourcePattern] = Field(
        default=["s3://*", "hf://*"], max_length=64, json_schema_extra=SET, description="Allowed model URIs."
    )
    datasets: list[SourcePattern] = Field(
        default=["s3://*"], max_length=64, json_schema_extra=SET, description="Allowed dataset URIs."
    )
    images: list[ImagePattern] = Field(
        default=[],
        max_length=64,
        json_schema_extra=SET,
        description="Allowed https:// URLs of images in datasets, in addition to data URIs and the URIs in "
        "`datasets`: `https://host/folder/*`, `https://*.host`.",
    )


def _names_its_accelerator(role: str) -> tuple[str, str, str]:
    asked = f"self.{role}.accelerator"
    return (
        f"!has(self.{role}) || !has({asked}) || has({asked}.resourceName) || has(self.accelerator) || "
        f"{asked}.countPerNode == 0",
        f"{role}.accelerator needs a resourceName where spec.accelerator is not set",
        role,
    )


class FineTuneClassSpec(ApiModel):
    """What the platform provides to objects that use this class."""

    model_config = ConfigDict(
        json_schema_extra=cel(_names_its_accelerator("evaluation"), _names_its_accelerator("serving"))
    )

    images: Images = Images()
    storage: Storage
    accelerator: Accelerator | None = Field(
        None,
        description="Accelerators for training Pods, and for evaluation and serving Pods by default. Omitted: Pods run "
        "on CPUs.",
    )
    resources: Resources = Field(
        Resources(), description="For training Pods, and for evaluation and serving Pods by default."
    )
    preflight: PreflightPods = PreflightPods()
    evaluation: RolePods = Field(RolePods(), description="For evaluation Pods that load a model.")
    serving: RolePods = Field(RolePods(), description="For the Pods of ModelDeployments.")
    limits: Limits = Limits()
    sources: AllowedSources = AllowedSources()
    models: list[ListedModel] = Field(
        default=[],
        max_length=32,
        json_schema_extra=keyed_by("name"),
        description="Models behind an API: judges, candidates and baseline of Evaluations, classifiers of datasets; "
        "and models to fine-tune (`base`), of which a FineTuneSweep finds the smallest that will do.",
    )
    scheduling: Scheduling = Field(
        Scheduling(), description="For training Pods, and for evaluation and serving Pods by default."
    )
    hub: Hub = Hub()
    env: list[EnvironmentVariable] = Field(
        default=[],
        max_length=32,
        json_schema_extra=keyed_by("name"),
        description="Environment variables for all Pods, for example for a proxy (HTTPS_PROXY, NO_PROXY).",
    )
    pod_metadata: PodMetadata = Field(
        PodMetadata(),
        description="Added to every Pod. Pods that run to completion are kept out of service meshes unless the mesh's "
        'own key is set here (`sidecar.istio.io/inject: "true"`).',
    )
    openai: OpenAIApi = Field(
        OpenAIApi(), description="For OpenAI's fine-tuning API in the cluster (docs/how-to/openai.md)."
    )
    reclaim_policy: Literal["Retain", "Delete"] = Field(
        "Retain",
        description="Whether the checkpoints and results of a deleted FineTuneJob are kept in the storage or deleted.",
    )


class FineTuneClassStatus(KindStatus):
    """State of the class."""
