"""What is known of a canary's Pods and traffic when its next step is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api.modeldeployment import CanaryStatus, TrafficReport
from finetune_operator.modeldeployment.gateway.readiness import ready_gateways, role_behind_service
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.crash import crash_of, is_crashing
from finetune_operator.modeldeployment.serving.revisions import model_of, name_of
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.roles import CANARY_ROLE, GATEWAY_ROLE, SERVE_ROLE
from finetune_operator.pods.start_diagnosis import diagnose_start


@dataclass(frozen=True)
class CanaryObservation:
    """`ready`: Pods. `is_gone`: it has no Deployment (any more).

    `failing`: why its Pods don't answer. `is_its_fault`: they crash; a node, an image or a volume may come.
    `splits`: whether the gateway answers, so that it gets what it is to get.
    """

    ready: int
    splits: bool
    reports: Sequence[TrafficReport] = ()
    is_gone: bool = False
    failing: str = ""
    is_its_fault: bool = False


def observation_of(observed: ObservedModelDeployment, canary: CanaryStatus, now: datetime) -> CanaryObservation:
    """What is known of this canary."""
    pods = _pods_of(observed, canary)
    blocked = diagnose_start(None, tuple(pods), observed.warnings, now)
    failing = crash_of(pods) if blocked is None else blocked.readiness
    return CanaryObservation(
        ready=sum(pod.ready for pod in pods),
        splits=ready_gateways(observed) > 0 and role_behind_service(observed, SERVE_ROLE) == GATEWAY_ROLE,
        reports=observed.reports,
        is_gone=is_gone(observed),
        failing="" if failing is None else failing.message,
        is_its_fault=blocked is None and is_crashing(pods),
    )


def is_gone(observed: ObservedModelDeployment) -> bool:
    """Whether no canary has a Deployment (any more)."""
    return observed.of_role("Deployment", CANARY_ROLE) is None


def _pods_of(observed: ObservedModelDeployment, canary: CanaryStatus) -> list[PodView]:
    """Those of its model: the Deployment may have some of another one."""
    models = {item["metadata"]["name"]: model_of(observed.owner, item) for item in observed.config_maps}
    pods = (pod for pod in observed.canary_pods if not pod.terminating)
    return [pod for pod in pods if name_of(models.get(pod.run_config)) == canary.revision]
