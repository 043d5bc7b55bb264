"""The objects of a ModelDeployment: a ConfigMap per model revision, a Deployment, a Service."""

from __future__ import annotations

from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.modeldeployment import Rollout
from finetune_api.pod_contracts.run import (
    RUN_CONFIG_DIRECTORY,
    RUN_CONFIG_PATH,
    SERVED_MODEL_DIRECTORY,
    SERVING_DRAIN_SECONDS,
    SERVING_LINGER_SECONDS,
    SERVING_PORT,
    FetchRun,
    ModelSource,
)
from finetune_operator.core.managed_fields import with_digest
from finetune_operator.core.ownership import OWNER_UID_LABEL, ROLE_LABEL, Owner, child_name, metadata
from finetune_operator.finetuneclass.resolve import ResolvedClass, storage_config
from finetune_operator.kube.resources import Object
from finetune_operator.pods.builders import (
    PodRole,
    container_security_context,
    disk_volume,
    environment,
    from_config_map,
    hub_token_volumes,
    pod_base,
    resources,
    run_config_map,
    trainer_container,
)
from finetune_operator.pods.observed import RUN_VOLUME
from finetune_operator.pods.roles import SERVE_ROLE, of_role

SERVICE_PORT = 80
SERVER = "server"
WITHOUT_POD_IDENTITY = {
    f"{webhook}/skip-containers": SERVER
    for webhook in ("eks.amazonaws.com", "azure.workload.identity", "pod-identity.alibabacloud.com")
}
"""A service account is a whole Pod's. The webhooks that give Pods an identity leave the containers out that these name:
only the init container, which fetches the model, has the storage's."""
EXIT_SECONDS = 10
SPREAD_OVER = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
_MODELS_VOLUME = {"name": "models", "mountPath": SERVED_MODEL_DIRECTORY}


def service_url(owner: Owner) -> str:
    """Base URL of the OpenAI routes inside the cluster, whatever its domain is: each Pod's search list completes it."""
    return f"http://{owner.name}.{owner.namespace}.svc/v1"


def selector_text(owner: Owner) -> str:
    """The labels of the serving Pods, as the scale subresource tells them."""
    return ",".join(f"{name}={value}" for name, value in pods_of(owner, SERVE_ROLE).items())


def serving_objects(
    owner: Owner,
    replicas: int,
    class_: ResolvedClass,
    model: ModelSource,
    strategy: Object,
    address_of: str = SERVE_ROLE,
) -> list[Object]:
    """What serves this model, each with the digest of what is applied.

    `strategy`: of the Deployment. `address_of`: the role of the Pods that the Service leads to.
    """
    return [*pods_and_configuration(owner, replicas, class_, model, strategy), service(owner, address_of)]


def pods_and_configuration(
    owner: Owner, replicas: int, class_: ResolvedClass, model: ModelSource, strategy: Object, role: str = SERVE_ROLE
) -> list[Object]:
    """The run configuration of this model, and the Deployment of a role that serves it."""
    run = FetchRun(storage=storage_config(class_.spec), model=model, name=owner.name)
    payload = run.model_dump_json(by_alias=True)
    config_map = child_name(owner, SERVE_ROLE, payload)
    return [
        with_digest(run_config_map(owner, config_map, SERVE_ROLE, {"run.json": payload})),
        with_digest(_deployment(owner, replicas, class_, config_map, strategy, role)),
    ]


def strategy_of(rollout: Rollout, *, makes_room: bool) -> Object:
    """How one revision replaces another. `makes_room`: Pods of the old one go before one of the new one is ready."""
    if rollout.type == "Recreate":
        return {"type": "Recreate"}
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "100%" if makes_room else 0, "maxSurge": 1},
    }


def _deployment(
    owner: Owner, replicas: int, class_: ResolvedClass, config_map: str, strategy: Object, role: str
) -> Object:
    class_spec = of_role(class_.spec, class_.spec.serving)
    template = pod_base(owner, role, class_spec, from_config_map(config_map))
    fetch = trainer_container("fetch", PodRole(role, ("fetch", RUN_CONFIG_PATH), reads_hub=True), class_spec)
    fetch["volumeMounts"].append(_MODELS_VOLUME)
    template["spec"]["volumes"] += [disk_volume("models", class_spec, role), *hub_token_volumes(class_spec)]
    template["spec"]["initContainers"] = [fetch]
    template["spec"]["containers"] = [_server(class_spec)]
    grace = SERVING_LINGER_SECONDS + SERVING_DRAIN_SECONDS + EXIT_SECONDS
    template["spec"]["terminationGracePeriodSeconds"] = grace
    template["spec"]["topologySpreadConstraints"] = spread(owner, role)
    if class_.spec.storage.service_account_name is not None:
        template["metadata"]["annotations"] |= WITHOUT_POD_IDENTITY
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, owner.name if role == SERVE_ROLE else child_name(owner, role), role),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": pods_of(owner, role)},
            "progressDeadlineSeconds": 600,
            "strategy": strategy,
            "template": template,
        },
    }


def _server(class_spec: FineTuneClassSpec) -> Object:
    """`finetune-trainer serve`: OpenAI's routes for the one model, with no credential in its reach."""
    variables = [{"name": name, "value": value} for name, value in environment(class_spec).items()]
    return {
        "name": SERVER,
        "image": class_spec.images.trainer,
        "args": ["serve", RUN_CONFIG_PATH],
        **({"env": variables} if variables else {}),
        "ports": [{"name": "http", "containerPort": SERVING_PORT}],
        "resources": resources(class_spec, accelerated=True, role=SERVE_ROLE),
        "securityContext": container_security_context(),
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "volumeMounts": [
            {"name": RUN_VOLUME, "mountPath": RUN_CONFIG_DIRECTORY, "readOnly": True},
            {**_MODELS_VOLUME, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }


def spread(owner: Owner, role: str) -> list[Object]:
    """Replicas of one revision on different nodes and zones, where there are any: one node's end leaves the others."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": pods_of(owner, role)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in SPREAD_OVER
    ]


def service(owner: Owner, role: str = SERVE_ROLE) -> Object:
    """The address of whatever serves, with the digest of what is applied. `role`: of the Pods that it leads to."""
    return with_digest(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(owner, owner.name, SERVE_ROLE),
            "spec": {
                # The default, to be ours: an ExternalName would lead to another host.
                "type": "ClusterIP",
                "selector": pods_of(owner, role),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}],
            },
        }
    )


def headless_service(owner: Owner, name: str, role: str) -> Object:
    """The serving Pods of a role that are ready, as addresses of a name: the gateway chooses among them itself."""
    return with_digest(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(owner, child_name(owner, name), SERVE_ROLE),
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "selector": pods_of(owner, role),
                "ports": [{"name": "http", "port": SERVING_PORT, "targetPort": "http"}],
            },
        }
    )


def disruption_budget(owner: Owner, role: str = SERVE_ROLE) -> Object:
    """Of several replicas, a drain of nodes takes one at a time; a Pod that is not ready holds up no drain."""
    return with_digest(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(owner, child_name(owner, role), SERVE_ROLE),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": pods_of(owner, role)},
            },
        }
    )


def pods_of(owner: Owner, role: str) -> dict[str, str]:
    """The labels that select the Pods of a role."""
    return {OWNER_UID_LABEL: owner.uid, ROLE_LABEL: role}
