"""What matters of Job and Pod objects, read once into values that the plans look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finetune_operator.children import DIGEST_ANNOTATION, ROLE_LABEL, controller
from finetune_operator.kube import Object

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class PodView:
    """What matters of a Pod.

    `job_name` and `job_uid` are its controller's, a Job's or a ReplicaSet's; empty for a Pod that was made by hand.
    `deletion_time` is the end of its grace period; `started_time` and `ended_time` are those of its main containers.
    """

    name: str
    job_name: str
    role: str
    index: int
    phase: str
    exit_code: int | None
    message: str
    oom_killed: bool
    disrupted: bool
    waiting_reason: str
    waiting_message: str
    unschedulable_since: datetime | None
    unschedulable_message: str
    uid: str = ""
    job_uid: str = ""
    created: datetime | None = None
    scheduled_time: datetime | None = None
    started_time: datetime | None = None
    ended_time: datetime | None = None
    deletion_time: datetime | None = None
    disruption: str = ""
    ready: bool = False

    @property
    def ended(self) -> bool:
        """Whether all of its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether it is being deleted."""
        return self.deletion_time is not None


@dataclass(frozen=True)
class JobView:
    """What matters of a Job.

    `ending`: how it ends is certain, but its Pods still do. `reason`: why it failed. `digest`: see unstarted.py.
    """

    name: str
    uid: str
    state: Literal["Active", "Complete", "Failed"]
    message: str
    created: datetime
    deleting: bool
    role: str
    suspended: bool = False
    started: datetime | None = None
    ended: datetime | None = None
    ending: bool = False
    reason: str = ""
    queue_name: str | None = None
    parallelism: int = 1
    digest: str = ""


def pod_view(pod: Object) -> PodView:
    """Read a Pod object."""
    meta, status, by = pod["metadata"], pod.get("status", {}), controller(pod)
    containers: list[dict[str, Any]] = status.get("containerStatuses", [])
    every = [*status.get("initContainerStatuses", []), *containers]
    terminated = _first(every, "terminated")
    waiting = _first(every, "waiting", skip=("PodInitializing", "ContainerCreating"))
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    disruption = conditions.get("DisruptionTarget", {})
    disrupted = disruption.get("status") == "True"
    return PodView(
        name=meta["name"],
        job_name=by.name if by is not None else "",
        job_uid=by.uid if by is not None else "",
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        index=int(meta.get("annotations", {}).get(_INDEX_ANNOTATION, "0")),
        phase=status.get("phase", "Pending"),
        exit_code=terminated.get("exitCode"),
        message=terminated.get("message", "") or "",
        oom_killed=terminated.get("reason") == "OOMKilled",
        disrupted=disrupted,
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", "") or "",
        unschedulable_since=parse_time(scheduled["lastTransitionTime"]) if unschedulable else None,
        unschedulable_message=scheduled.get("message", "") if unschedulable else "",
        uid=meta.get("uid", ""),
        created=_time(meta, "creationTimestamp"),
        scheduled_time=parse_time(scheduled["lastTransitionTime"]) if scheduled.get("status") == "True" else None,
        started_time=_extreme(min, containers, "startedAt"),
        ended_time=_extreme(max, containers, "finishedAt"),
        deletion_time=_time(meta, "deletionTimestamp"),
        disruption=_words(disruption) if disrupted else _words(status) if status.get("phase") == "Failed" else "",
        ready=conditions.get("Ready", {}).get("status") == "True",
    )


def job_view(job: Object) -> JobView:
    """Read a Job object."""
    meta, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    held = {condition["type"]: condition for condition in status.get("conditions", []) if condition["status"] == "True"}
    state: Literal["Active", "Complete", "Failed"] = "Active"
    if "Complete" in held:
        state = "Complete"
    elif "Failed" in held:
        state = "Failed"
    failed = held.get("Failed") or held.get("FailureTarget") or {}
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        state=state,
        message=held.get("Failed", {}).get("message", ""),
        created=parse_time(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        role=meta.get("labels", {}).get(ROLE_LABEL, ""),
        suspended=bool(spec.get("suspend", False)),
        started=_time(status, "startTime"),
        ended=_time(status, "completionTime") or _time(held.get("Failed", {}), "lastTransitionTime"),
        ending=state == "Active" and not held.keys().isdisjoint(("FailureTarget", "SuccessCriteriaMet")),
        reason=failed.get("reason", ""),
        queue_name=meta.get("labels", {}).get(QUEUE_LABEL),
        parallelism=spec.get("parallelism", 1),
        digest=meta.get("annotations", {}).get(DIGEST_ANNOTATION, ""),
    )


def parse_time(text: str) -> datetime:
    """A Kubernetes timestamp."""
    return datetime.fromisoformat(text)


def _words(fields: dict[str, Any]) -> str:
    """Reason and message of a condition, or of a Pod that the kubelet refused or evicted."""
    return f"{fields['reason']}: {fields.get('message', '')}" if fields.get("reason") else ""


def _time(fields: dict[str, Any], name: str) -> datetime | None:
    text = fields.get(name)
    return parse_time(text) if text else None


def _first(containers: Sequence[dict[str, Any]], state: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The first container's state of this name that tells something: of terminations a failed one first."""
    found = [
        details
        for container in containers
        # A container that is started again tells of its end in lastState.
        for details in (container.get("state", {}).get(state) or container.get("lastState", {}).get(state),)
        if details is not None and details.get("reason") not in skip
    ]
    found.sort(key=lambda details: details.get("exitCode", 1) == 0)
    return found[0] if found else {}


def _extreme(
    choose: Callable[[list[datetime]], datetime], containers: Sequence[dict[str, Any]], name: str
) -> datetime | None:
    """The first or last moment of this name that running and ended containers tell."""
    found = [
        moment
        for container in containers
        for details in container.get("state", {}).values()
        if details is not None
        for moment in (_time(details, name),)
        if moment is not None
    ]
    return choose(found) if found else None
