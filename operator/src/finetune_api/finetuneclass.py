"""FineTuneClass: the platform team's settings for every object that uses the class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, Line, Name, Text, cel
from finetune_api.conditions import KindStatus
from finetune_api.kubernetes_types import (
    SET,
    ExtendedResourceName,
    LabelKey,
    Labels,
    LabelValue,
    Quantity,
    QueueName,
    SubdomainName,
    keyed_by,
)
from finetune_api.model_graders import ModelName
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf, TypedUnion

DEFAULT_CLASS_ANNOTATION = "finetune.dev/is-default-class"


class Images(ApiModel):
    """Container images."""

    trainer: Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=1024)] | None = Field(
        None,
        description="Image for preflight, training, evaluation and serving Pods. Omitted: the trainer image "
        "configured for the operator.",
    )


class KMS(ApiModel):
    """Settings for a key management service."""

    key_id: Line | None = Field(None, description="ID of the KMS key. Omitted: the bucket's default key.")


class ServerSideEncryption(TypedUnion):
    """Server-side encryption for written objects (x-amz-server-side-encryption)."""

    type: Literal["S3", "KMS"] = Field(
        description="S3: keys managed by the storage (AES256). KMS: keys managed by a KMS (aws:kms)."
    )
    kms: KMS | None = None


class Storage(OneOf):
    """The S3-compatible storage for checkpoints and results.

    The operator never reads a credential: it only writes the Secret's name into Pods.
    """

    choices = ("credentials_secret_name", "service_account_name")

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$", max_length=253)] | None = Field(
        None, description="URL of the S3 endpoint. Omitted: AWS."
    )
    region: Annotated[str, StringConstraints(max_length=64)] = Field(
        "us-east-1",
        description="Region used to sign requests. Most S3-compatible storage other than AWS accepts any value.",
    )
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", max_length=63)] = Field(
        description="Bucket for checkpoints and results. It must exist."
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^[^/\s][^\s]*[^/\s]$", max_length=512)] = Field(
        "finetune", description="Key prefix. Each run writes below <prefix>/<namespace>/<name>/<runId>-<digest>-<uid>/."
    )
    path_style: bool = Field(False, description="Use path-style instead of virtual-hosted-style addresses.")
    ca_bundle: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----", max_length=65536)] | None = (
        Field(None, description="PEM CA certificates used to verify the endpoint. Omitted: the public CAs.")
    )
    server_side_encryption: ServerSideEncryption | None = None
    outage_tolerance_seconds: int = Field(
        600,
        ge=0,
        le=86400,
        description="How long requests are retried while the storage is unreachable. A shorter "
        "outage only delays a run.",
    )
    credentials_secret_name: SubdomainName | None = Field(
        None,
        description="Name of a Secret in the JOB's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    service_account_name: SubdomainName | None = Field(
        None,
        description="Name of a service account in the JOB's namespace that provides a pod identity for the storage.",
    )


class Accelerator(ApiModel):
    """The extended resource that training, evaluation and serving Pods request."""

    resource_name: ExtendedResourceName = Field(
        "nvidia.com/gpu", description="Name of the extended resource, as advertised by a device plugin."
    )
    count_per_node: int = Field(1, ge=1, le=64, description="Accelerators per Pod.")
    memory: Quantity | None = Field(
        None, description="Memory of one accelerator, which preflight compares with its estimate."
    )


class Resources(ApiModel):
    """Resource requests of each Pod. Memory and ephemeral storage are also the limits."""

    cpu: Quantity = Field("1", description="CPU request per Pod; there is no CPU limit.")
    memory: Quantity = Field("4Gi", description="Memory request and limit per Pod.")
    ephemeral_storage: Quantity = Field(
        "20Gi",
        description="Ephemeral storage request and limit per Pod: model and dataset are downloaded to it. The kubelet "
        "evicts a Pod that exceeds it, which counts as a failure.",
    )


class Limits(ApiModel):
    """Upper limits for each object and each namespace."""

    nodes: int = Field(8, ge=1, le=1024, description="Maximum spec.parallelism.nodes of a FineTuneJob.")
    replicas: int = Field(8, ge=1, le=1024, description="Maximum spec.replicas of a ModelDeployment.")
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=LONGEST_SECONDS,
        description="Maximum duration of a FineTuneJob's run, and the default for jobs that set no deadline.",
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


class Toleration(ApiModel):
    """core/v1 Toleration."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                "operator must be Exists if there is no key",
                "operator",
            ),
            (
                "!has(self.value) || !has(self.operator) || self.operator == 'Equal'",
                "value is only allowed with operator Equal",
                "value",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds is only allowed with effect NoExecute",
                "tolerationSeconds",
            ),
        )
    )

    key: LabelKey | None = Field(None, description="Key of the taint. Omitted, with operator Exists: every taint.")
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Exists: matches every value of the taint. Equal: matches only `value`. Omitted: Equal."
    )
    value: LabelValue | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Omitted: every effect."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        le=LONGEST_SECONDS,
        description="For effect NoExecute: how long the taint is tolerated. Omitted: forever.",
    )


class RoleScheduling(ApiModel):
    """Scheduling constraints for the Pods of one role."""

    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=32, description="Taints that the Pods tolerate.")
    priority_class_name: SubdomainName | None = Field(None, description="Name of the PriorityClass for the Pods.")
    runtime_class_name: SubdomainName | None = Field(None, description="Name of the RuntimeClass for the Pods.")


class Scheduling(RoleScheduling):
    """Scheduling constraints and the queue."""

    queue_name: QueueName | None = Field(None, description="Name of the Kueue LocalQueue for training Jobs.")


def _key_rules(field: str) -> tuple[tuple[str, str], ...]:
    """Kubernetes' rules for label and annotation keys, plus protection of the operator's own keys."""
    parts = "key.split('/')"
    each = f"!has(self.{field}) || self.{field}.all(key, "
    return (
        (
            f"{each}{parts}.size() <= 2 && {parts}[{parts}.size() - 1].size() <= 63 && "
            f"{parts}[{parts}.size() - 1].matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
            f"a key of {field} is an optional prefix and '/', and up to 63 letters, digits, '-', '_' and '.', which "
            "begin and end with a letter or digit",
        ),
        (
            f"{each}{parts}.size() == 1 || {parts}[0].size() <= 253 && "
            f"{parts}[0].matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))",
            f"the prefix of a key of {field} is a DNS name of up to 253 lower-case letters, digits, '-' and '.'",
        ),
        (
            f"{each}{parts}.size() == 1 || !({parts}[0] == 'finetune.dev' || {parts}[0].endsWith('.finetune.dev') || "
            f"{parts}[0] == 'batch.kubernetes.io' || key == 'app.kubernetes.io/managed-by'))",
            "the prefixes finetune.dev and batch.kubernetes.io, and app.kubernetes.io/managed-by, are reserved for "
            "the operator and Kubernetes",
        ),
    )


class PodMetadata(ApiModel):
    """Labels and annotations for Pods, for example for a service mesh, a policy or cost reports."""

    model_config = ConfigDict(json_schema_extra=cel(*_key_rules("labels"), *_key_rules("annotations")))

    labels: dict[str, LabelValue] = Field(default={}, max_length=16, description="Labels to add.")
    annotations: dict[str, Text] = Field(default={}, max_length=16, description="Annotations to add.")


class PreflightResources(ApiModel):
    """Resource requests of each Pod. Memory and ephemeral storage are also the limits."""

    cpu: Quantity = Field("500m", description="CPU request per Pod; there is no CPU limit.")
    memory: Quantity = Field("2Gi", description="Memory request and limit per Pod.")
    ephemeral_storage: Quantity = Field(
        "10Gi", description="Ephemeral storage request and limit per Pod: the dataset is downloaded to it."
    )


class PreflightPods(ApiModel):
    """Settings for Pods that need no accelerator: preflight, and cleanup of a deleted job's storage."""

    resources: PreflightResources = PreflightResources()
    scheduling: RoleScheduling | None = Field(
        None,
        description="Scheduling constraints. Omitted: any node, with the tolerations and priority class of "
        "spec.scheduling.",
    )


Price = Annotated[float, Field(ge=0, le=1_000_000)]


class Prices(ApiModel):
    """What a million tokens cost, in any currency; the same for all models of a class."""

    prompt_per_million: Price = Field(0.0, description="Price of a million tokens of prompts.")
    completion_per_million: Price = Field(0.0, description="Price of a million tokens of replies.")


class ModelDeploymentReference(ApiModel):
    """A ModelDeployment that serves the model."""

    name: Name = Field(description="Name of the ModelDeployment.")
    namespace: Name | None = Field(None, description="Its namespace. Omitted: that of the object that names the model.")


class ModelEndpoint(OneOf):
    """A model behind an OpenAI-compatible API. Objects of the class use it by its name."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.modelDeploymentRef) || !(has(self.model) || has(self.credentialsSecretName))",
                "a ModelDeployment has no key, and is asked for its own model",
                "modelDeploymentRef",
            )
        )
    )

    choices = ("url", "model_deployment_ref")

    name: ModelName = Field(description="Name of the model in specs.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=512)] | None = Field(
        None, description="Base URL of the API, such as https://api.openai.com/v1. Redirects are not followed."
    )
    model_deployment_ref: ModelDeploymentReference | None = None
    model: Line | None = Field(None, description="Value of the requests' `model` field. Omitted: `name`.")
    credentials_secret_name: SubdomainName | None = Field(
        None,
        description="Name of a Secret in the namespace of the OBJECT that names the model, with the key API_KEY. "
        "Omitted: requests have no key.",
    )
    ca_bundle: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----", max_length=65536)] | None = (
        Field(None, description="PEM CA certificates used to verify the endpoint. Omitted: the public CAs.")
    )
    requests_per_minute: int = Field(600, ge=1, le=1_000_000, description="Maximum rate of requests of one Pod.")
    concurrency: int = Field(8, ge=1, le=256, description="Maximum number of concurrent requests of one Pod.")
    timeout_seconds: int = Field(120, ge=1, le=3600, description="How long a request may take.")
    prices: Prices | None = Field(None, description="Prices for the cost in status.usage.")


OpenAIModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=128)]
"""Without a colon: the names of fine-tuned models have one between each two parts."""


class OpenAIModel(ApiModel):
    """A base model of OpenAI's fine-tuning API."""

    name: OpenAIModelName = Field(description="What the API calls the model: `qwen3-0.6b`, `gpt-4o-mini-2024-07-18`.")
    aliases: list[OpenAIModelName] = Field(
        default=[],
        max_length=16,
        json_schema_extra=SET,
        description="Other names that clients may ask for: `gpt-4o-mini`.",
    )
    uri: ModelUri = Field(description="The model that is fine-tuned: s3://bucket/folder or hf://org/name@revision.")


class OpenAIApi(ApiModel):
    """What OpenAI's fine-tuning API offers to clients in namespaces whose API uses this class."""

    models: list[OpenAIModel] = Field(
        default=[],
        max_length=64,
        json_schema_extra=keyed_by("name"),
        description="The models that clients may fine-tune, by the names that they use.",
    )


class FineTuneClassSpec(ApiModel):
    """What the platform provides to objects that use this class."""

    images: Images = Images()
    storage: Storage
    accelerator: Accelerator | None = Field(
        None, description="Accelerators for training, evaluation and serving Pods. Omitted: Pods run on CPUs."
    )
    resources: Resources = Field(Resources(), description="For training, evaluation and serving Pods.")
    preflight: PreflightPods = PreflightPods()
    limits: Limits = Limits()
    sources: AllowedSources = AllowedSources()
    models: list[ModelEndpoint] = Field(
        default=[],
        max_length=32,
        json_schema_extra=keyed_by("name"),
        description="Models behind an API, which Evaluations may use as judges, candidates and baseline.",
    )
    scheduling: Scheduling = Field(Scheduling(), description="For training, evaluation and serving Pods.")
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
