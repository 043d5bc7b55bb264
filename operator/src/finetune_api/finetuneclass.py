"""FineTuneClass: what the platform team decides once, for every job that names the class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, Line, Text, cel
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
)
from finetune_api.unions import OneOf, TypedUnion

DEFAULT_CLASS_ANNOTATION = "finetune.dev/is-default-class"


class Images(ApiModel):
    """The images that Pods run."""

    trainer: Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=1024)] | None = Field(
        None,
        description="Image of every Pod that reads data, trains, evaluates or serves; omitted: the operator's own "
        "trainer image.",
    )


class KMS(ApiModel):
    """A key management service."""

    key_id: Line | None = Field(None, description="Omitted: the bucket's default key.")


class ServerSideEncryption(TypedUnion):
    """How the storage is asked to encrypt what is written (x-amz-server-side-encryption)."""

    type: Literal["S3", "KMS"] = Field(description="S3: keys of the storage (AES256). KMS: keys of a KMS (aws:kms).")
    kms: KMS | None = None


class Storage(OneOf):
    """The S3-compatible storage in which jobs keep checkpoints and results.

    The operator never reads a credential: it only writes the Secret's name into Pods.
    """

    choices = ("credentials_secret_name", "service_account_name")

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$", max_length=253)] | None = Field(
        None, description="URL of the S3 endpoint; omitted: AWS."
    )
    region: Annotated[str, StringConstraints(max_length=64)] = Field(
        "us-east-1", description="Region that requests are signed for. Storages other than AWS mostly take any."
    )
    bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", max_length=63)] = Field(
        description="Bucket in which jobs write; it must exist."
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^[^/\s][^\s]*[^/\s]$", max_length=512)] = Field(
        "finetune", description="Key prefix; jobs write below <prefix>/<namespace>/<name>/<runId>-<digest>-<uid>/."
    )
    path_style: bool = Field(False, description="Address buckets as a path, not as a host name.")
    ca_bundle: Annotated[str, StringConstraints(pattern=r"^-----BEGIN CERTIFICATE-----", max_length=65536)] | None = (
        Field(None, description="PEM certificates that the endpoint's TLS is trusted by; omitted: the public ones.")
    )
    server_side_encryption: ServerSideEncryption | None = None
    outage_tolerance_seconds: int = Field(
        600, ge=0, le=86400, description="A storage that does not answer for a shorter time only delays a run."
    )
    credentials_secret_name: SubdomainName | None = Field(
        None,
        description="Secret in the JOB's namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    service_account_name: SubdomainName | None = Field(
        None, description="Service account in the JOB's namespace that carries a pod identity for the storage."
    )


class Accelerator(ApiModel):
    """The extended resource that training, evaluation and serving Pods ask for."""

    resource_name: ExtendedResourceName = Field(
        "nvidia.com/gpu", description="Extended resource that a device plugin offers on the nodes."
    )
    count_per_node: int = Field(1, ge=1, le=64, description="Accelerators of each Pod.")
    memory: Quantity | None = Field(None, description="Memory of one accelerator; preflight compares its estimate.")


class Resources(ApiModel):
    """What each Pod requests; memory is its limit too."""

    cpu: Quantity = Field("1", description="CPU that each Pod requests; not limited.")
    memory: Quantity = Field("4Gi", description="Memory that each Pod requests, and is limited to.")


class Limits(ApiModel):
    """The most that one object may ask for."""

    nodes: int = Field(8, ge=1, le=1024, description="Most nodes of one FineTuneJob.")
    replicas: int = Field(8, ge=1, le=1024, description="Most replicas of one ModelDeployment.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, le=LONGEST_SECONDS, description="Longest run of one FineTuneJob."
    )
    accelerator_hours_per_month: int | None = Field(
        None, ge=0, le=10_000_000, description="Accelerator hours of one namespace in a calendar month (UTC)."
    )


SourcePattern = Annotated[
    str,
    StringConstraints(
        pattern=r"^(s3|hf|pvc)://([^*?\[\]]*/)?[^*?\[\]/]*$|^(s3|hf|pvc)://([^*?\[\]]+/)?\*$", max_length=1024
    ),
]
"""A `*` stands for what is below a folder: `s3://bucket/models*` would let `models-secret/` in too."""
ImagePattern = Annotated[
    str,
    StringConstraints(pattern=r"^https://(\*|(\*\.)?[^*?\[\]/]+)(/[^*?\[\]]*|/([^*?\[\]]*/)?\*)?$", max_length=1024),
]


class AllowedSources(ApiModel):
    """The URIs that jobs may read: each written out, or everything below a folder (`s3://bucket/folder/*`).

    `hf://org/name` is a hub's repository at every revision, `hf://org/name@v1` at that one.
    """

    models: list[SourcePattern] = Field(
        default=["s3://*", "hf://*"], max_length=64, json_schema_extra=SET, description="Model URIs."
    )
    datasets: list[SourcePattern] = Field(
        default=["s3://*"], max_length=64, json_schema_extra=SET, description="Dataset URIs."
    )
    images: list[ImagePattern] = Field(
        default=[],
        max_length=64,
        json_schema_extra=SET,
        description="https:// URLs of images that datasets may name, besides data URIs and what `datasets` allows: "
        "`https://host/folder/*`, `https://*.host`.",
    )


class Toleration(ApiModel):
    """core/v1 Toleration."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                "operator must be Exists where no key is given",
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

    key: LabelKey | None = Field(None, description="Taint's key. Omitted: every taint, with operator Exists.")
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Exists: whatever the taint's value. Equal: only `value`. Omitted: Equal."
    )
    value: LabelValue | None = Field(None, description="Taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint's effect. Omitted: every one."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        le=LONGEST_SECONDS,
        description="For effect NoExecute: how long the taint is tolerated. Omitted: for ever.",
    )


class RoleScheduling(ApiModel):
    """Where the Pods of one role may run."""

    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=32, description="Taints that a node may have.")
    priority_class_name: SubdomainName | None = Field(None, description="PriorityClass of the Pods.")
    runtime_class_name: SubdomainName | None = Field(None, description="RuntimeClass of the Pods.")


class Scheduling(RoleScheduling):
    """Where Pods may run."""

    queue_name: QueueName | None = Field(None, description="Kueue LocalQueue that training Jobs are queued in.")


def _key_rules(field: str) -> tuple[tuple[str, str], ...]:
    """Kubernetes' rules for the keys of labels and annotations, and that those which the operator sets stay its own."""
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
            "the prefixes finetune.dev and batch.kubernetes.io, and app.kubernetes.io/managed-by, are the operator's "
            "and Kubernetes' own",
        ),
    )


class PodMetadata(ApiModel):
    """Labels and annotations of Pods: what a service mesh, a policy or a cost report goes by."""

    model_config = ConfigDict(json_schema_extra=cel(*_key_rules("labels"), *_key_rules("annotations")))

    labels: dict[str, LabelValue] = Field(default={}, max_length=16, description="Labels, by their keys.")
    annotations: dict[str, Text] = Field(default={}, max_length=16, description="Annotations, by their keys.")


class PreflightResources(ApiModel):
    """What each Pod requests; memory is its limit too."""

    cpu: Quantity = Field("500m", description="CPU that each Pod requests; not limited.")
    memory: Quantity = Field("2Gi", description="Memory that each Pod requests, and is limited to.")


class PreflightPods(ApiModel):
    """Pods that read and remove, and compute little: preflight, and the emptying of a deleted job's storage."""

    resources: PreflightResources = PreflightResources()
    scheduling: RoleScheduling | None = Field(
        None,
        description="Where they may run. Omitted: on any node, with the tolerations and the priority class of "
        "spec.scheduling.",
    )


class FineTuneClassSpec(ApiModel):
    """What the platform provides to jobs of this class."""

    images: Images = Images()
    storage: Storage
    accelerator: Accelerator | None = Field(None, description="Omitted: Pods run on CPU.")
    resources: Resources = Field(Resources(), description="Of training, evaluation and serving.")
    preflight: PreflightPods = PreflightPods()
    limits: Limits = Limits()
    sources: AllowedSources = AllowedSources()
    scheduling: Scheduling = Field(Scheduling(), description="Of training, evaluation and serving.")
    pod_metadata: PodMetadata = Field(
        PodMetadata(),
        description="Added to every Pod. Those that run to an end are kept out of service meshes unless a mesh's own "
        'key is set here (`sidecar.istio.io/inject: "true"`).',
    )
    reclaim_policy: Literal["Retain", "Delete"] = Field(
        "Retain", description="What becomes of a deleted FineTuneJob's checkpoints and results in the storage."
    )


class FineTuneClassStatus(KindStatus):
    """What the operator found of a class."""
