"""The objects of a gateway: its Deployment, its disruption budget, and the names that it finds servers by."""

from __future__ import annotations

from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.modeldeployment import Gateway
from finetune_api.pod_contracts.run import (
    METRICS_PORT,
    PROGRESS_TOKEN_PATH,
    SERVING_DRAIN_SECONDS,
    SERVING_LINGER_SECONDS,
    SERVING_PORT,
)
from finetune_operator.core.managed_fields import with_digest
from finetune_operator.core.ownership import Owner, child_name, metadata
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.canary.objects import SERVERS as CANARY_SERVERS
from finetune_operator.modeldeployment.objects import EXIT_SECONDS, disruption_budget, headless_service, pods_of, spread
from finetune_operator.pods.builders import (
    bare_pod,
    container_security_context,
    progress_token_mount,
    progress_token_volume,
)
from finetune_operator.pods.roles import CANARY_ROLE, GATEWAY_ROLE, SERVE_ROLE
from finetune_operator.progress.endpoint import ProgressEndpoint

COMMAND = "finetune-gateway"
SERVERS = "servers"
CONTROL_CA_VARIABLE = "FINETUNE_CONTROL_CA"
_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def gateway_objects(
    owner: Owner, gateway: Gateway, class_spec: FineTuneClassSpec, image: str, control: ProgressEndpoint | None = None
) -> list[Object]:
    """All of them, each with the digest of what is applied. `control`: what it asks for the share of a canary."""
    return [
        headless_service(owner, SERVERS, SERVE_ROLE),
        *([headless_service(owner, CANARY_SERVERS, CANARY_ROLE)] if control is not None else []),
        with_digest(_deployment(owner, gateway, class_spec, image, control)),
        *([disruption_budget(owner, GATEWAY_ROLE)] if gateway.replicas > 1 else []),
    ]


def _deployment(
    owner: Owner, gateway: Gateway, class_spec: FineTuneClassSpec, image: str, control: ProgressEndpoint | None
) -> Object:
    template = bare_pod(owner, GATEWAY_ROLE, class_spec)
    container = _container(owner, gateway, image)
    if control is not None:
        template["spec"]["volumes"] = [progress_token_volume()]
        container |= {
            "args": [
                *container["args"],
                f"--canary-servers={child_name(owner, CANARY_SERVERS)}.{owner.namespace}.svc",
                f"--control-url={control.traffic_url_for(owner)}",
                f"--control-token={PROGRESS_TOKEN_PATH}",
            ],
            "env": [{"name": CONTROL_CA_VARIABLE, "value": control.ca}],
            "volumeMounts": [progress_token_mount()],
        }
    template["spec"]["containers"] = [container]
    grace = SERVING_LINGER_SECONDS + SERVING_DRAIN_SECONDS + EXIT_SECONDS
    template["spec"]["terminationGracePeriodSeconds"] = grace
    template["spec"]["topologySpreadConstraints"] = spread(owner, GATEWAY_ROLE)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, child_name(owner, GATEWAY_ROLE), GATEWAY_ROLE),
        "spec": {
            "replicas": gateway.replicas,
            "selector": {"matchLabels": pods_of(owner, GATEWAY_ROLE)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _container(owner: Owner, gateway: Gateway, image: str) -> Object:
    """Without a canary it has no credential, no volume and no token: the servers' name is of any cluster domain."""
    probe = {"httpGet": {"path": "/healthz", "port": "metrics"}, "timeoutSeconds": 5}
    return {
        "name": "gateway",
        "image": image,
        "command": [COMMAND],
        "args": [
            f"--servers={child_name(owner, SERVERS)}.{owner.namespace}.svc",
            f"--servers-port={SERVING_PORT}",
            f"--port={SERVING_PORT}",
            f"--metrics-port={METRICS_PORT}",
            f"--in-flight={gateway.in_flight_limit}",
            f"--queue={gateway.queue_limit}",
            f"--queue-seconds={gateway.queue_seconds}",
            f"--linger-seconds={SERVING_LINGER_SECONDS}",
            f"--drain-seconds={SERVING_DRAIN_SECONDS}",
        ],
        "ports": [
            {"name": "http", "containerPort": SERVING_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "resources": _RESOURCES,
        "securityContext": container_security_context(),
        "readinessProbe": {**probe, "periodSeconds": 2},
        "livenessProbe": {
            "tcpSocket": {"port": "metrics"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
