"""What the Pods of a class are made of: images, accelerators, resources, labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, Text, cel
from finetune_api.finetuneclass.scheduling import RoleScheduling
from finetune_api.kubernetes_types import (
    SET,
    EnvironmentVariableName,
    ExtendedResourceName,
    LabelValue,
    Quantity,
    SubdomainName,
    keyed_by,
)

SET_BY_OTHERS = (
    *("HF_ENDPOINT", "HF_TOKEN_PATH", "HF_HOME", "RENDEZVOUS_HOST", "JOB_COMPLETION_INDEX"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("HOME", "TMPDIR", "PATH", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"),
)
"""Environment variables of which another value would break a Pod, or make every Pod of a gang the first one."""
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$", max_length=512)]


class Images(ApiModel):
    """Container images."""

    trainer: Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=1024)] | None = Field(
        None,
        description="Image for preflight, training, evaluation and serving Pods. Omitted: the trainer image "
        "configured for the operator.",
    )
    pull_secret_names: list[SubdomainName] = Field(
        default=[],
        max_length=8,
        json_schema_extra=SET,
        description="Names of image pull Secrets in the OBJECT's namespace.",
    )


class AdditionalResource(ApiModel):
    """An extended resource beside the accelerators, such as an InfiniBand adapter."""

    resource_name: ExtendedResourceName = Field(description="Name of the extended resource: rdma/hca.")
    count_per_node: int = Field(1, ge=1, le=64, description="Number per Pod.")


class Accelerator(ApiModel):
    """The extended resource that training, evaluation and serving Pods request."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.additionalResources) || "
                "!self.additionalResources.exists(one, one.resourceName == self.resourceName)",
                "the accelerator itself is no additional resource: its number is countPerNode",
                "additionalResources",
            )
        )
    )

    resource_name: ExtendedResourceName = Field(
        "nvidia.com/gpu", description="Name of the extended resource, as advertised by a device plugin."
    )
    count_per_node: int = Field(1, ge=1, le=64, description="Accelerators per Pod.")
    memory: Quantity | None = Field(
        None, description="Memory of one accelerator, which preflight compares with its estimate."
    )
    additional_resources: list[AdditionalResource] = Field(
        default=[],
        max_length=8,
        json_schema_extra=keyed_by("resourceName"),
        description="Extended resources that training Pods request beside the accelerators, for example for RDMA. They "
        "do not count for budgets.",
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
    shared_memory: Quantity | None = Field(
        None,
        description="Size limit of /dev/shm, which counts as memory. Omitted: limited only by `memory`.",
    )


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


class RoleAccelerator(ApiModel):
    """The accelerators of the Pods of one role."""

    resource_name: ExtendedResourceName | None = Field(
        None, description="Name of the extended resource. Omitted: spec.accelerator.resourceName."
    )
    count_per_node: int = Field(ge=0, le=64, description="Accelerators per Pod. 0: Pods run on CPUs.")


class RoleResources(ApiModel):
    """Resource requests of each Pod of one role. Memory and ephemeral storage are also the limits."""

    cpu: Quantity = Field(description="CPU request per Pod; there is no CPU limit.")
    memory: Quantity = Field(description="Memory request and limit per Pod.")
    ephemeral_storage: Quantity = Field(description="Ephemeral storage request and limit per Pod.")
    shared_memory: Quantity | None = Field(
        None, description="Size limit of /dev/shm, which counts as memory. Omitted: limited only by `memory`."
    )


class RolePods(ApiModel):
    """Settings for the Pods of one role, where they differ from those of training Pods."""

    accelerator: RoleAccelerator | None = Field(None, description="Omitted: the accelerators of training Pods.")
    resources: RoleResources | None = Field(None, description="Omitted: the resources of training Pods.")
    scheduling: RoleScheduling | None = Field(None, description="Omitted: the scheduling of training Pods.")


class EnvironmentVariable(ApiModel):
    """A variable for the containers of all Pods. It is visible to everyone who can read the class or a Pod."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!(self.name in ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'HF_TOKEN', "
                "'HUGGING_FACE_HUB_TOKEN', 'API_KEY'])",
                "credentials belong in Secrets: see storage.credentialsSecretName, hub.tokenSecretName and "
                "models[].credentialsSecretName",
                "name",
            ),
            (
                f"!(self.name in {[*SET_BY_OTHERS]})",
                "this variable is set by Kubernetes, the operator or the image (HF_ENDPOINT: by hub.endpoint)",
                "name",
            ),
            (
                "!has(self.value) || !self.value.matches('(?i)^[a-z0-9+.-]+://[^/@]*@')",
                "a URL with credentials would be visible to everyone who can read the class or a Pod",
                "value",
            ),
        )
    )

    name: EnvironmentVariableName = Field(description="Name of the variable: HTTPS_PROXY.")
    value: Text | None = Field(None, description="Its value. Omitted: empty.")


class Hub(ApiModel):
    """The Hugging Face Hub, or a mirror of it, from which hf:// models and datasets are read."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.tokenSecretName) || !has(self.endpoint) || self.endpoint.startsWith('https://')",
                "a token is only sent to https:// endpoints",
                "endpoint",
            )
        )
    )

    endpoint: HttpUrl | None = Field(None, description="URL of a mirror. Omitted: the public Hub.")
    token_secret_name: SubdomainName | None = Field(
        None,
        description="Name of a Secret in the OBJECT's namespace with the key HF_TOKEN, for gated and private models. "
        "It may be absent in namespaces that use only public models.",
    )
