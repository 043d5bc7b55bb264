"""What to do next for a ModelDeployment: a pure function of what was observed."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.blockages import BLOCKAGE_CHECK_SECONDS, Blockage, blockage, refusal
from finetune_operator.children import is_applied, is_controlled_by
from finetune_operator.classes import ResolvedClass, source_violation
from finetune_operator.kube import CONFIG_MAPS, Object
from finetune_operator.modeldeployment.gate import gate_standing
from finetune_operator.modeldeployment.objects import service_url, serving_objects
from finetune_operator.modeldeployment.observe import ObservedModelDeployment
from finetune_operator.plan import Child, Plan, planned
from finetune_operator.pod_diagnosis import failure, failure_words
from finetune_operator.status import Standing, known_reason, progressing, ready, stalled


def plan(observed: ObservedModelDeployment, now: datetime) -> Plan[ModelDeploymentStatus]:
    """The writes that bring the deployment one step further. What serves already goes on serving meanwhile."""
    spec, owner, platform, model = observed.spec, observed.owner, observed.platform, observed.model
    if isinstance(platform, Standing):
        return _waiting(observed, platform, now)
    if spec.replicas > platform.spec.limits.replicas:
        message = (
            f"spec.replicas is {spec.replicas}; FineTuneClass {platform.name!r} allows {platform.spec.limits.replicas}."
        )
        return _waiting(observed, stalled(Reason.LIMIT_EXCEEDED, message), now)
    uris = [spec.model.uri] if spec.model.uri else []
    refused = source_violation(platform.spec, models=uris, datasets=[]) or _name_taken(observed)
    if refused is not None:
        return _waiting(observed, refused, now)
    if isinstance(model, Standing):
        return _waiting(observed, model, now)
    held = gate_standing(observed.gate, spec.gate.evaluation_ref.name if spec.gate else "", spec.model, model)
    if held is not None:
        return _waiting(observed, held, now)
    return _roll_out(observed, platform, serving_objects(owner, spec, platform, model.source), now)


def _roll_out(
    observed: ObservedModelDeployment, platform: ResolvedClass, objects: list[Object], now: datetime
) -> Plan[ModelDeploymentStatus]:
    owner, spec = observed.owner, observed.spec
    existing = [*observed.config_maps, observed.deployment, observed.service]
    by_key = {(item["kind"], item["metadata"]["name"]): item for item in existing if item is not None}
    missing = [item for item in objects if not is_applied(item, by_key.get((item["kind"], item["metadata"]["name"])))]
    digest = observed.model.source.digest if not isinstance(observed.model, Standing) else None
    rolled_out = (observed.deployment or {}).get("status", {})
    status = observed.status.model_copy(
        update={
            "url": service_url(owner),
            "model_name": owner.name,
            "revision": digest or observed.spec.model.uri,
            "replicas": rolled_out.get("replicas", 0),
            "ready_replicas": rolled_out.get("readyReplicas", 0),
        }
    )
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    if missing:
        return planned(
            observed, status, "RollingOut", progressing(Reason.ROLLING_OUT), now, apply=missing, requeue_at=check
        )
    complete = (
        rolled_out.get("observedGeneration") == (observed.deployment or {})["metadata"]["generation"]
        and rolled_out.get("updatedReplicas", 0) == spec.replicas
        and rolled_out.get("readyReplicas", 0) == spec.replicas
        and rolled_out.get("replicas", 0) == spec.replicas
    )
    if complete:
        current = {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"}
        stale = tuple(
            Child(CONFIG_MAPS, owner.namespace, item["metadata"]["name"], item["metadata"]["uid"])
            for item in observed.config_maps
            if item["metadata"]["name"] not in current
        )
        standing = ready(Reason.AVAILABLE, f"Ask {status.url} for the model {status.model_name!r}.")
        return planned(observed, status, "Available", standing, now, delete=stale)
    return planned(observed, status, "RollingOut", _rollout_standing(observed, now), now, requeue_at=check)


def _rollout_standing(observed: ObservedModelDeployment, now: datetime) -> Standing:
    blocked = _refused_pods(observed) or blockage(None, observed.pods, observed.warnings, now)
    if blocked is not None:
        return stalled(blocked.reason, blocked.message)
    crashed = [pod for pod in observed.pods if pod.waiting_reason == "CrashLoopBackOff"]
    if crashed:
        diagnosis = failure(crashed, crashed[0].waiting_message)
        return stalled(known_reason(diagnosis.reason), failure_words(diagnosis))
    return progressing(Reason.ROLLING_OUT)


def _refused_pods(observed: ObservedModelDeployment) -> Blockage | None:
    """Why the API server refuses the Pods of the Deployment, which says so itself."""
    for condition in (observed.deployment or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal(condition.get("message", ""))
    return None


def _name_taken(observed: ObservedModelDeployment) -> Standing | None:
    """Never take over a Service or Deployment that somebody else made under our name."""
    for kind, item in (("Deployment", observed.deployment), ("Service", observed.service)):
        if item is not None and not is_controlled_by(item, observed.owner.uid):
            return stalled(
                Reason.NAME_CONFLICT,
                f"A {kind} named {observed.owner.name!r} exists already and is not of this ModelDeployment. Delete it, "
                "or give the ModelDeployment another name.",
            )
    return None


def _waiting(observed: ObservedModelDeployment, standing: Standing, now: datetime) -> Plan[ModelDeploymentStatus]:
    phase = "Blocked" if standing.stalled else "Waiting"
    return planned(observed, observed.status, phase, standing, now)
