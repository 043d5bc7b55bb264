"""The Pod template that every child runs in: it passes the restricted Pod Security Standard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_api.finetuneclass import FineTuneClassSpec, PodMetadata, Resources
from finetune_api.finetunejob import ConfigMapKeys
from finetune_api.pod_contracts.outcome import TERMINATION_MESSAGE_PATH
from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from finetune_api.pod_contracts.run import (
    DATASET_DIRECTORY,
    HUB_TOKEN_DIRECTORY,
    HUB_TOKEN_KEY,
    MODEL_KEY,
    MODEL_KEYS_DIRECTORY,
    PROGRESS_TOKEN_PATH,
    RUN_ANNOTATIONS,
    RUN_CONFIG_DIRECTORY,
    RUN_DIGEST_VARIABLE,
    STORAGE_CREDENTIALS_DIRECTORY,
)
from finetune_operator.core.digest import annotated, digest
from finetune_operator.core.ownership import OWNER_ANNOTATION, Owner, labels, metadata
from finetune_operator.kube.resources import JOBS, PODS, Object
from finetune_operator.pods.observed import MODEL_KEY_VOLUME, QUEUE_LABEL, RUN_VOLUME
from finetune_operator.pods.roles import node_affinity, resources_of, scheduling_of

USER_ID = 65532
CREDENTIALS_VOLUME = "storage-credentials"
_HUB_TOKEN_VOLUME = "hub-token"  # noqa: S105
_CREDENTIALS_MOUNT = {"name": CREDENTIALS_VOLUME, "mountPath": STORAGE_CREDENTIALS_DIRECTORY, "readOnly": True}
_MESH_LABELS = {"sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled"}
_MESH_ANNOTATIONS = {
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
    "kuma.io/sidecar-injection": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
    "openservicemesh.io/sidecar-injection": "disabled",
    "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
}
"""Keep the sidecars of meshes out of Pods that run to completion; a Pod that serves may be in a mesh."""


@dataclass(frozen=True)
class PodRole:
    """How the Pods of one role differ from those of another."""

    role: str
    args: tuple[str, ...]
    accelerated: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    threads_from_cpu_request: bool = False
    reports_progress: bool = False
    metrics_port: int | None = None
    grace_seconds: int = 30
    datasets: Mapping[str, ConfigMapKeys] = field(default_factory=dict)
    """ConfigMaps of the namespace by their folder below DATASET_DIRECTORY."""
    model_keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets of the namespace with the keys of the class's models, by the model."""
    reads_hub: bool = False
    """Whether it may read models or datasets from the class's hub."""


def pod_template(owner: Owner, role: PodRole, class_spec: FineTuneClassSpec, run_volume: Object) -> Object:
    """Pod template of one container that runs `finetune-trainer` on a run configuration, once."""
    template = pod_base(owner, role.role, class_spec, run_volume)
    asked = class_spec.pod_metadata
    template["metadata"]["labels"] |= _kept_out_of_meshes(_MESH_LABELS, asked)
    template["metadata"]["annotations"] |= _kept_out_of_meshes(_MESH_ANNOTATIONS, asked)
    template["spec"] |= {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": role.grace_seconds,
        "containers": [trainer_container("trainer", role, class_spec)],
    }
    if role.reports_progress:
        template["spec"]["volumes"].append(progress_token_volume())
    if role.reads_hub:
        template["spec"]["volumes"] += hub_token_volumes(class_spec)
    template["spec"]["volumes"] += [_dataset_volume(name, keys) for name, keys in role.datasets.items()]
    template["spec"]["volumes"] += [_model_key_volume(model, secret) for model, secret in role.model_keys.items()]
    return template


def _kept_out_of_meshes(marks: Mapping[str, str], asked: PodMetadata) -> dict[str, str]:
    """These labels or annotations, without those that the class sets itself, as a label or as an annotation."""
    return {key: value for key, value in marks.items() if key not in asked.labels and key not in asked.annotations}


def pod_base(owner: Owner, role: str, class_spec: FineTuneClassSpec, run_volume: Object) -> Object:
    """A Pod template without containers and restart policy. `run_volume`: the source of its run configuration."""
    template = bare_pod(owner, role, class_spec)
    volumes: list[Object] = [
        {"name": RUN_VOLUME, **run_volume},
        disk_volume("tmp", class_spec, role),
        {"name": "shm", "emptyDir": {"medium": "Memory", **_shared_memory_limit(class_spec, role)}},
    ]
    if class_spec.storage.credentials_secret_name is not None:
        volumes.append(_credentials_volume(class_spec.storage.credentials_secret_name))
    template["spec"]["volumes"] = volumes
    if class_spec.storage.service_account_name:
        template["spec"]["serviceAccountName"] = class_spec.storage.service_account_name
    return template


def bare_pod(owner: Owner, role: str, class_spec: FineTuneClassSpec) -> Object:
    """A Pod template with nothing but where it runs and as whom: without volumes, and an identity for the storage."""
    scheduling = scheduling_of(class_spec, role)
    spec: dict[str, Any] = {
        # A pod identity's token is projected by its webhook, for its own audience; none is for the API server.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in class_spec.images.pull_secret_names],
        "nodeSelector": scheduling.node_selector,
        "affinity": node_affinity(scheduling),
        "tolerations": [toleration.to_wire() for toleration in scheduling.tolerations],
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
    }
    spec |= {name: value for name, value in optional.items() if value}
    asked = class_spec.pod_metadata
    annotations = {**asked.annotations, OWNER_ANNOTATION: f"{owner.kind}/{owner.name}"}
    return {"metadata": {"labels": {**asked.labels, **labels(owner, role)}, "annotations": annotations}, "spec": spec}


def trainer_container(name: str, role: PodRole, class_spec: FineTuneClassSpec) -> Object:
    """A container of the trainer image that has the run configuration and the storage's credentials."""
    mounts = [
        {"name": RUN_VOLUME, "mountPath": RUN_CONFIG_DIRECTORY, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if class_spec.storage.credentials_secret_name is not None:
        mounts.append(_CREDENTIALS_MOUNT)
    if role.reports_progress:
        mounts.append(progress_token_mount())
    mounts += [
        {"name": _dataset_volume_name(dataset), "mountPath": f"{DATASET_DIRECTORY}/{dataset}", "readOnly": True}
        for dataset in role.datasets
    ]
    mounts += [
        {"name": f"{MODEL_KEY_VOLUME}{model}", "mountPath": f"{MODEL_KEYS_DIRECTORY}/{model}", "readOnly": True}
        for model in role.model_keys
    ]
    if role.reads_hub and class_spec.hub.token_secret_name is not None:
        mounts.append({"name": _HUB_TOKEN_VOLUME, "mountPath": HUB_TOKEN_DIRECTORY, "readOnly": True})
    ports = [] if role.metrics_port is None else [{"name": "metrics", "containerPort": role.metrics_port}]
    return {
        "name": name,
        "image": class_spec.images.trainer,
        "args": list(role.args),
        "env": _environment(role, class_spec),
        **({"ports": ports} if ports else {}),
        "resources": resources(class_spec, accelerated=role.accelerated, role=role.role),
        "securityContext": container_security_context(),
        "terminationMessagePath": TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def container_security_context() -> Object:
    """No privileges, no capabilities, and a read-only root filesystem."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resources(class_spec: FineTuneClassSpec, *, accelerated: bool, role: str) -> Object:
    """Requests and limits; memory and disk are never overcommitted, CPU may burst."""
    asked = resources_of(class_spec, role)
    limits = {"memory": asked.memory, "ephemeral-storage": asked.ephemeral_storage}
    requests = {"cpu": asked.cpu, **limits}
    if accelerated and class_spec.accelerator is not None:
        limits[class_spec.accelerator.resource_name] = str(class_spec.accelerator.count_per_node)
        for other in class_spec.accelerator.additional_resources:
            limits[other.resource_name] = str(other.count_per_node)
    return {"requests": requests, "limits": limits}


def _shared_memory_limit(class_spec: FineTuneClassSpec, role: str) -> Object:
    asked = resources_of(class_spec, role)
    limit = asked.shared_memory if isinstance(asked, Resources) else None
    return {} if limit is None else {"sizeLimit": limit}


def disk_volume(name: str, class_spec: FineTuneClassSpec, role: str) -> Object:
    """An emptyDir on the node's disk, which may use all of the Pod's ephemeral storage."""
    return {"name": name, "emptyDir": {"sizeLimit": resources_of(class_spec, role).ephemeral_storage}}


def _credentials_volume(secret: str) -> Object:
    """The Secret in the Pod's own namespace as files, which the kubelet updates when it is rotated."""
    return {"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _model_key_volume(model: str, secret: str) -> Object:
    """A file with one key of the Secret, and none of the others."""
    items = [{"key": MODEL_KEY, "path": MODEL_KEY}]
    return {
        "name": f"{MODEL_KEY_VOLUME}{model}",
        "secret": {"secretName": secret, "items": items, "defaultMode": 0o440},
    }


def _dataset_volume_name(dataset: str) -> str:
    return f"dataset-{dataset}"


def _dataset_volume(dataset: str, keys: ConfigMapKeys) -> Object:
    """The files of a ConfigMap. It is optional: preflight reports a missing one better than a Pod that can't start."""
    config_map: Object = {"name": keys.name, "optional": True}
    if keys.key is not None:
        config_map["items"] = [{"key": keys.key, "path": keys.key}]
    return {"name": _dataset_volume_name(dataset), "configMap": config_map}


def run_config_map(owner: Owner, name: str, role: str, data: Mapping[str, str]) -> Object:
    """An immutable ConfigMap for a run.json that may be too large for annotations."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, name, role),
        "immutable": True,
        "data": dict(data),
    }


def from_config_map(name: str) -> Object:
    """The source of a volume with the files of a ConfigMap."""
    return {"configMap": {"name": name}}


def pinned(run_json: str) -> dict[str, str]:
    """The environment of a container that accepts no other run.json, whatever becomes of its ConfigMap."""
    return {RUN_DIGEST_VARIABLE: f"sha256:{hashlib.sha256(run_json.encode()).hexdigest()}"}


def job(
    owner: Owner,
    name: str,
    role: PodRole,
    class_spec: FineTuneClassSpec,
    run: Object,
    *,
    deadline_seconds: int,
    **spec: Any,
) -> Object:
    """A batch/v1 Job that runs once: whether to retry a failure is the operator's decision.

    `run`: the source of the volume with its run configuration. `deadline_seconds`: when Kubernetes ends it, even if no
    operator is running.
    """
    body: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(owner, name, role.role),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_seconds,
            "template": pod_template(owner, role, class_spec, run),
            **spec,
        },
    }
    return body


def annotated_job(
    owner: Owner,
    name: str,
    role: PodRole,
    class_spec: FineTuneClassSpec,
    files: Mapping[str, str],
    *,
    deadline_seconds: int,
    **spec: Any,
) -> Object:
    """The same, with these files of its run configuration (RUN_ANNOTATIONS) in its Pods' annotations.

    The API server refuses more than 256 KiB of annotations.
    """
    volume = _from_annotations(files)
    body = job(owner, name, role, class_spec, volume, deadline_seconds=deadline_seconds, **spec)
    body["spec"]["template"]["metadata"]["annotations"] |= _annotations(files)
    return body


def annotated_pod(
    owner: Owner,
    name: str,
    role: PodRole,
    class_spec: FineTuneClassSpec,
    files: Mapping[str, str],
    *,
    deadline_seconds: int,
) -> Object:
    """A Pod without a Job, with these files in its annotations: a Job for a single Pod only costs writes."""
    template, meta = pod_template(owner, role, class_spec, _from_annotations(files)), metadata(owner, name, role.role)
    found = template["metadata"]
    # By its label, Kueue would hold back a Pod as it does a Job. This one asks for no accelerator, and is not queued.
    meta["labels"] = {name: value for name, value in found["labels"].items() if name != QUEUE_LABEL}
    meta["annotations"] = found["annotations"] | _annotations(files)
    spec = template["spec"] | {"activeDeadlineSeconds": deadline_seconds}
    return {"apiVersion": PODS.api_version, "kind": PODS.kind, "metadata": meta, "spec": spec}


def _from_annotations(files: Mapping[str, str]) -> Object:
    """The volume with files that are in the Pod's annotations."""
    paths = {file: f"metadata.annotations['{RUN_ANNOTATIONS[file]}']" for file in files}
    return {"downwardAPI": {"items": [{"path": file, "fieldRef": {"fieldPath": path}} for file, path in paths.items()]}}


def _annotations(files: Mapping[str, str]) -> dict[str, str]:
    return {RUN_ANNOTATIONS[file]: text for file, text in files.items()}


def put_in_queue(body: Object, class_spec: FineTuneClassSpec) -> None:
    """Put a Job that is about to be created into Kueue's queue of its class, if that has one."""
    queue = class_spec.scheduling.queue_name
    if queue is not None:
        body["metadata"]["labels"] |= {QUEUE_LABEL: queue}
        # Kueue starts it. Without Kueue's webhook nothing else would keep it from starting by itself.
        body["spec"]["suspend"] = True


def environment(class_spec: FineTuneClassSpec) -> dict[str, str]:
    """The variables that the class sets in every container."""
    return {variable.name: variable.value or "" for variable in class_spec.env}


def hub_token_volumes(class_spec: FineTuneClassSpec) -> list[Object]:
    """The hub's token as a file, if the namespace has one: public models need none."""
    secret = class_spec.hub.token_secret_name
    if secret is None:
        return []
    items = [{"key": HUB_TOKEN_KEY, "path": HUB_TOKEN_KEY}]
    source = {"secretName": secret, "items": items, "optional": True, "defaultMode": 0o440}
    return [{"name": _HUB_TOKEN_VOLUME, "secret": source}]


def _hub_environment(class_spec: FineTuneClassSpec) -> dict[str, str]:
    hub = class_spec.hub
    endpoint = {} if hub.endpoint is None else {"HF_ENDPOINT": hub.endpoint}
    token = {} if hub.token_secret_name is None else {"HF_TOKEN_PATH": f"{HUB_TOKEN_DIRECTORY}/{HUB_TOKEN_KEY}"}
    return {**endpoint, **token}


def _environment(role: PodRole, class_spec: FineTuneClassSpec) -> list[Object]:
    of_hub = _hub_environment(class_spec) if role.reads_hub else {}
    by_name = {**environment(class_spec), **of_hub, **role.environment}
    variables: list[Object] = [{"name": name, "value": value} for name, value in by_name.items()]
    if role.threads_from_cpu_request and "OMP_NUM_THREADS" not in by_name:
        request = {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
        variables.append({"name": "OMP_NUM_THREADS", "valueFrom": request})
    return variables


def progress_token_mount() -> Object:
    """Where a container has the token to report with."""
    return {"name": "progress-token", "mountPath": PROGRESS_TOKEN_PATH.rpartition("/")[0], "readOnly": True}


def progress_token_volume() -> Object:
    """The token to report with, which no other audience takes."""
    token = {"path": "token", "audience": PROGRESS_AUDIENCE, "expirationSeconds": 3600}
    return {"name": "progress-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


def rendered(objects: Sequence[Object]) -> list[Object]:
    """The objects; their Job or Pod is annotated with a digest of all, which is_outdated (leftovers.py) compares."""
    value = digest(list(objects), 16)
    return [annotated(body, value) if body["kind"] in (JOBS.kind, PODS.kind) else body for body in objects]
