"""The objects of a canary: what serves the next model."""

from __future__ import annotations

from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.ownership import Owner
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.objects import pods_and_configuration
from finetune_operator.pods.roles import CANARY_ROLE

SERVERS = "canary-servers"
"""Of the name that the gateway finds them by."""
_STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def canary_objects(owner: Owner, replicas: int, class_: ResolvedClass, model: ModelSource) -> list[Object]:
    """What serves the next model beside what serves."""
    return pods_and_configuration(owner, replicas, class_, model, _STRATEGY, CANARY_ROLE)
