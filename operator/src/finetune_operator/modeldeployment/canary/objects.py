"""The objects of a canary: the Deployment of the next model, and the name that the gateway finds its Pods by."""

from __future__ import annotations

from finetune_api.run import SERVING_PORT, ModelSource
from finetune_operator.core.managed_fields import with_digest
from finetune_operator.core.ownership import Owner, child_name, metadata
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.objects import SERVE_ROLE, pods_and_configuration, pods_of
from finetune_operator.pods.roles import CANARY_ROLE

SERVERS = "canary-servers"
_STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def canary_objects(owner: Owner, replicas: int, class_: ResolvedClass, model: ModelSource) -> list[Object]:
    """What serves the next model beside what serves."""
    return pods_and_configuration(owner, replicas, class_, model, _STRATEGY, CANARY_ROLE)


def canary_servers(owner: Owner) -> Object:
    """The canary's Pods that are ready, as addresses of a name; there are none while there is no canary."""
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "selector": pods_of(owner, CANARY_ROLE),
        "ports": [{"name": "http", "port": SERVING_PORT, "targetPort": "http"}],
    }
    meta = metadata(owner, child_name(owner, SERVERS), SERVE_ROLE)
    return with_digest({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
