"""How far what was applied has come: the counts of the Deployment, and what keeps its Pods from serving."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, known_reason, progressing, ready, stalled
from finetune_operator.modeldeployment.contest import contest_readiness
from finetune_operator.modeldeployment.objects import service_url
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.pods.exit_diagnosis import failure, failure_message
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.start_diagnosis import StartDiagnosis, diagnose_start, refusal


@dataclass(frozen=True)
class Rollout:
    """Where the Pods stand; `summary`: the same, for a message about something else."""

    complete: bool
    readiness: Readiness
    summary: str


def rollout_of(
    observed: ObservedModelDeployment, replicas: int, served: ModelSource | None, now: datetime, *, applied: bool
) -> Rollout:
    """Compare the Deployment with what is wanted of it; `applied`: whether it is as it was applied."""
    deployment = observed.deployment or {}
    counts = deployment.get("status", {})
    complete = applied and served is not None and _is_complete(deployment, replicas)
    contest = contest_readiness(observed.status.drift, observed.owner.name)
    readiness = contest or _readiness(observed, replicas, complete, now)
    revision = (served.digest or served.uri) if served is not None else ""
    summary = (
        f"Revision {revision!r} is served meanwhile: {counts.get('readyReplicas', 0)} of {replicas} replicas ready."
    )
    if replicas == 0:
        summary = f"Revision {revision!r} is scaled to zero meanwhile."
    if readiness.stalled:
        summary = f"{summary} {readiness.reason}: {readiness.message}"
    return Rollout(complete, readiness, summary)


def _is_complete(deployment: dict[str, object], replicas: int) -> bool:
    counts, meta = deployment.get("status"), deployment.get("metadata")
    if not isinstance(counts, dict) or not isinstance(meta, dict):
        return False
    everywhere = all(counts.get(name, 0) == replicas for name in ("updatedReplicas", "readyReplicas", "replicas"))
    return everywhere and counts.get("observedGeneration") == meta["generation"]


def _readiness(observed: ObservedModelDeployment, replicas: int, complete: bool, now: datetime) -> Readiness:
    if complete and replicas == 0:
        # As for a Deployment: what was asked for is there.
        return ready(Reason.AVAILABLE, "Scaled to zero: no Pod serves. `kubectl scale mdep` brings them back.")
    if complete:
        url, name = service_url(observed.owner), observed.owner.name
        return ready(Reason.AVAILABLE, f"Ask {url} for the model {name!r}.")
    newest = _of_newest_revision(observed.pods)
    blocked = _refused_pods(observed) or diagnose_start(None, newest, observed.warnings, now)
    if blocked is not None and blocked.waits and _waits_for_its_predecessor(observed.pods):
        return stalled(
            blocked.reason,
            f"{blocked.message} The revision before holds what this one waits for, and serves until a Pod of this one "
            "is ready. Add a node for both, or lower spec.replicas by one for a while (at 0 nothing is served) and "
            "raise it again.",
        )
    if blocked is not None:
        return blocked.readiness
    crashed = _crashed(newest)
    if crashed is not None:
        diagnosis = failure([crashed], crashed.waiting_message)
        return stalled(known_reason(diagnosis.reason), f"{failure_message(diagnosis)} It is started again by itself.")
    return progressing(Reason.ROLLING_OUT)


def _of_newest_revision(pods: tuple[PodView, ...]) -> tuple[PodView, ...]:
    """What ails an older revision (ReplicaSet) is mended by the one that follows it."""
    created = [(pod.created, pod.job_uid) for pod in pods if pod.created is not None and not pod.terminating]
    if not created:
        return pods
    _, revision = max(created)
    return tuple(pod for pod in pods if pod.job_uid == revision)


def _waits_for_its_predecessor(pods: tuple[PodView, ...]) -> bool:
    """Whether a Pod that finds no node belongs to another revision (ReplicaSet) than one that serves."""
    waiting = {pod.job_uid for pod in pods if pod.unschedulable_since is not None and not pod.terminating}
    return any(pod.ready and not pod.terminating and waiting - {pod.job_uid} for pod in pods)


def _crashed(pods: tuple[PodView, ...]) -> PodView | None:
    """The newest Pod of which a container has ended with an error and that does not serve since."""
    # Its first end tells already: a container that runs longer than the kubelet's pause never shows CrashLoopBackOff.
    found = [pod for pod in pods if pod.exit_code not in (None, 0) and not (pod.ready or pod.ended or pod.terminating)]
    return max(found, key=lambda pod: (pod.created is not None, pod.created), default=None)


def _refused_pods(observed: ObservedModelDeployment) -> StartDiagnosis | None:
    """Why the API server refuses the Pods of the Deployment, which says so itself."""
    for condition in (observed.deployment or {}).get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return refusal(condition.get("message", ""))
    return None
