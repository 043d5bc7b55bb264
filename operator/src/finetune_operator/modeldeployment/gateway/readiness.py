"""Whether the gateway answers, and why it does not."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.pods.roles import GATEWAY_ROLE
from finetune_operator.pods.start_diagnosis import StartDiagnosis, diagnose_start, refusal


def gateway_readiness(observed: ObservedModelDeployment, now: datetime) -> Readiness | None:
    """What keeps the gateway from answering; None where it answers, or none is asked for."""
    asked = observed.spec.gateway
    if asked is None:
        return None
    if observed.gateway_image is None:
        return stalled(
            Reason.INVALID_SPEC,
            "spec.gateway needs the operator's own image, and the operator was started without --gateway-image. Set "
            "it, as the chart does, or remove spec.gateway. Until then, the Service leads to the serving Pods.",
        )
    if observed.spec.rollout.type == "Canary" and observed.progress_endpoint is None:
        return stalled(
            Reason.INVALID_SPEC,
            "spec.rollout.type Canary needs the operator's progress endpoint, and the operator was started without "
            "--progress-url. Set it, as the chart does, or use another type.",
        )
    ready = ready_gateways(observed)
    if ready >= asked.replicas:
        return None
    blocked = _refused(gateway_of(observed)) or diagnose_start(None, observed.gateway_pods, observed.warnings, now)
    if blocked is not None:
        readiness = blocked.readiness
        return stalled(readiness.reason, f"Of the gateway: {readiness.message}")
    reason = Reason.ROLLING_OUT if is_reachable(observed) else Reason.GATEWAY_UNAVAILABLE
    return progressing(reason, f"{ready} of {asked.replicas} Pods of the gateway are ready.")


def gateway_of(observed: ObservedModelDeployment) -> Object | None:
    """The gateway's Deployment."""
    return observed.of_role("Deployment", GATEWAY_ROLE)


def ready_gateways(observed: ObservedModelDeployment) -> int:
    """How many of its Pods are ready, of those that are asked for now."""
    deployment = gateway_of(observed) or {}
    counts = deployment.get("status", {})
    if not deployment or counts.get("observedGeneration") != deployment["metadata"]["generation"]:
        return 0
    updated: int = min(counts.get("updatedReplicas", 0), counts.get("readyReplicas", 0))
    return updated


def is_reachable(observed: ObservedModelDeployment) -> bool:
    """Whether the Service leads to serving Pods, or to a gateway of which a Pod is ready, of whichever template."""
    if role_behind_service(observed, "") != GATEWAY_ROLE:
        return True
    return bool((gateway_of(observed) or {}).get("status", {}).get("readyReplicas", 0))


def role_behind_service(observed: ObservedModelDeployment, otherwise: str) -> str:
    """The role of the Pods that the Service leads to: the gateway's once one of them answers, and from then on."""
    if observed.spec.gateway is None or observed.gateway_image is None:
        return otherwise
    service = observed.service
    is_there = service is not None and is_controlled_by(service, observed.owner.uid)
    leads_there = is_there and GATEWAY_ROLE in ((service or {})["spec"].get("selector") or {}).values()
    return GATEWAY_ROLE if leads_there or ready_gateways(observed) > 0 else otherwise


def _refused(deployment: Object | None) -> StartDiagnosis | None:
    for condition in (deployment or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal(condition.get("message", ""))
    return None
