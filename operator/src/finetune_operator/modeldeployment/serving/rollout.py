"""How far what was applied has come: the counts of the Deployment, its Pods, and what keeps them from serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from finetune_api.conditions import REASON_MEANINGS, Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness, progressing, ready, stalled
from finetune_operator.modeldeployment.gateway.readiness import gateway_readiness, is_reachable
from finetune_operator.modeldeployment.objects import service_url
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.crash import crash_of
from finetune_operator.modeldeployment.serving.drift import contested_readiness
from finetune_operator.modeldeployment.serving.revisions import Revision, name_of, revisions, serving_message
from finetune_operator.modeldeployment.serving.upkeep import Upkeep
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.start_diagnosis import StartDiagnosis, diagnose_start, early_message, refusal


@dataclass(frozen=True)
class Rollout:
    """How far the Pods are, and of which revisions; `summary`: the same, for a message about something else."""

    complete: bool
    readiness: Readiness
    summary: str = ""
    revisions: Sequence[Revision] = ()


def rollout_of(
    observed: ObservedModelDeployment, replicas: int, applied: ModelSource | None, writes: Upkeep, now: datetime
) -> Rollout:
    """Compare the Deployment and its Pods with what is wanted of them."""
    if applied is None:
        return Rollout(False, progressing(Reason.ROLLING_OUT))
    # ConfigMaps count as they are applied, whatever somebody changed in them.
    found = revisions(observed.owner, observed.pods, [*observed.config_maps, *writes.config_maps])
    all_answer = sum(one.ready for one in found if one.name == name_of(applied)) == replicas
    # The Deployment's counts may be known before the end of the last Pod of the revision before.
    is_alone = all(one.name == name_of(applied) for one in found)
    complete = writes.is_nothing and _is_complete(observed.deployment or {}, replicas) and all_answer and is_alone
    contest = contested_readiness(observed.status.drift, observed.owner.name, observed.status.drift_rounds)
    gateway, reachable = gateway_readiness(observed, now), is_reachable(observed)
    serving = _readiness(observed, replicas, now, complete=complete, is_alone=is_alone)
    # What serves comes first, without which the gateway has nothing to pass on to, unless it only starts.
    is_gateways = complete or serving.ready or not (reachable or serving.stalled)
    readiness = contest or (gateway if is_gateways else None) or serving
    complete = complete and gateway is None
    summary = serving_message(found, applied, replicas, reachable=reachable)
    if writes.recreated:
        summary = f"{summary} Deleted objects are being recreated: {', '.join(writes.recreated)}."
    if readiness.ready:
        return Rollout(complete, readiness, summary, found)
    has_detail = readiness.message != REASON_MEANINGS[readiness.reason]
    return Rollout(
        complete,
        replace(readiness, message=f"{readiness.message} {summary}"),
        f"{summary} {readiness.reason}: {readiness.message}" if has_detail else summary,
        found,
    )


def _is_complete(deployment: dict[str, object], replicas: int) -> bool:
    counts, meta = deployment.get("status"), deployment.get("metadata")
    if not isinstance(counts, dict) or not isinstance(meta, dict):
        return False
    everywhere = all(counts.get(name, 0) == replicas for name in ("updatedReplicas", "readyReplicas", "replicas"))
    return everywhere and counts.get("observedGeneration") == meta["generation"]


def _readiness(
    observed: ObservedModelDeployment, replicas: int, now: datetime, *, complete: bool, is_alone: bool
) -> Readiness:
    if replicas == 0 and (complete or not _has_pods(observed)):
        # As for a Deployment: what was asked for is there.
        return ready(Reason.AVAILABLE, "Scaled to zero: no Pod is serving. Scale up with `kubectl scale mdep`.")
    if complete:
        url, name = service_url(observed.owner), observed.owner.name
        return ready(Reason.AVAILABLE, f"Model {name!r} is served at {url}.")
    newest = _of_newest_revision(observed.pods)
    blocked = _refused_pods(observed) or diagnose_start(None, newest, observed.warnings, now)
    if blocked is not None and blocked.waits and _waits_for_its_predecessor(observed.pods):
        return stalled(
            blocked.reason,
            f"{blocked.message} The previous revision holds what this one needs, and serves until a Pod of this one is "
            "ready. Add a node, or set spec.rollout.type to Recreate: then the old Pods end first, and nothing is "
            "served meanwhile.",
        )
    if blocked is not None:
        return blocked.readiness
    crashed = crash_of(newest)
    if crashed is not None:
        return crashed
    if is_alone and _has_surplus(observed.pods, replicas):
        return progressing(Reason.ROLLING_OUT, "Scaled down: the Pods that are not needed any more end.")
    early = early_message(None, newest, observed.warnings, now)
    return progressing(Reason.ROLLING_OUT, REASON_MEANINGS[Reason.ROLLING_OUT] + early)


def _has_pods(observed: ObservedModelDeployment) -> bool:
    counts = (observed.deployment or {}).get("status", {})
    return bool(observed.pods) or counts.get("replicas", 0) > 0


def _has_surplus(pods: tuple[PodView, ...], replicas: int) -> bool:
    """Whether only the number of Pods is to fall: all are of one revision, and enough of them answer."""
    is_one = len({pod.job_uid for pod in pods}) == 1
    return is_one and len(pods) > replicas and sum(pod.ready for pod in pods) >= replicas


def _of_newest_revision(pods: tuple[PodView, ...]) -> tuple[PodView, ...]:
    """The Pods of the newest revision (ReplicaSet), which replaces whatever is wrong with older ones.

    Of two created within the same second (a creationTimestamp has no finer resolution), the newer one does not serve
    yet.
    """
    standing = [pod for pod in pods if pod.created is not None and not pod.terminating]
    created = [(pod.created, not pod.ready, pod.job_uid) for pod in standing]
    if not created:
        return pods
    *_, revision = max(created)
    return tuple(pod for pod in pods if pod.job_uid == revision)


def _waits_for_its_predecessor(pods: tuple[PodView, ...]) -> bool:
    """Whether a Pod that finds no node belongs to another revision (ReplicaSet) than one that serves."""
    waiting = {pod.job_uid for pod in pods if pod.unschedulable_since is not None and not pod.terminating}
    return any(pod.ready and not pod.terminating and waiting - {pod.job_uid} for pod in pods)


def _refused_pods(observed: ObservedModelDeployment) -> StartDiagnosis | None:
    """Why the API server refuses the Pods of the Deployment, which says so itself."""
    for condition in (observed.deployment or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal(condition.get("message", ""))
    return None
