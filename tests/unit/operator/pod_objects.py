"""Pod, Job and Event objects as kubelet, scheduler and Job controller write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NAME = "router-train-0f3c2a91-0-x7k2p"
POD_UID = "uid-of-the-pod"
JOB_UID = "uid-of-the-job"

SCHEDULED = {
    "type": "PodScheduled",
    "status": "True",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:00Z",
}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 No "
    "preemption victims found for incoming pod.",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:00Z",
}
GATED = {**UNSCHEDULABLE, "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty gates"}
PREEMPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "default-scheduler: preempting to accommodate a higher priority pod",
    "lastProbeTime": None,
    "lastTransitionTime": "2026-11-22T11:59:30Z",
}


def container(name: str = "trainer", **state: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "example.com/trainer:1",
        "imageID": "",
        "started": False,
    }


def waiting(reason: str, message: str | None = None) -> dict[str, Any]:
    return {"reason": reason} if message is None else {"reason": reason, "message": message}


def terminated(exit_code: int, reason: str = "Error", message: str | None = None) -> dict[str, Any]:
    times = {"startedAt": "2026-11-22T11:59:00Z", "finishedAt": "2026-11-22T11:59:30Z"}
    found = {"exitCode": exit_code, "reason": reason, "containerID": "containerd://1", **times}
    return found if message is None else {**found, "message": message}


def crashed(exit_code: int, message: str) -> dict[str, Any]:
    """A container that is started again and again."""
    back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container=server")
    return {
        **container("server", waiting=back_off),
        "lastState": {"terminated": terminated(exit_code, message=message)},
    }


def controlled_by(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": kind, "name": name, "uid": uid, "controller": True}


def pod_object(status: dict[str, Any], index: str | None = "0") -> dict[str, Any]:
    annotations = {} if index is None else {"batch.kubernetes.io/job-completion-index": index}
    return {
        "metadata": {
            "name": NAME,
            "uid": POD_UID,
            "creationTimestamp": "2026-11-22T11:59:00Z",
            "labels": {"batch.kubernetes.io/job-name": "router-train-0f3c2a91", "finetune.dev/role": "train"},
            "annotations": annotations,
            "ownerReferences": [controlled_by("Job", "router-train-0f3c2a91", JOB_UID)],
        },
        "spec": {},
        "status": status,
    }


def pending(*containers: dict[str, Any], conditions: Any = (SCHEDULED,)) -> dict[str, Any]:
    return {"phase": "Pending", "conditions": list(conditions), "containerStatuses": list(containers)}


CREATING = container(waiting=waiting("ContainerCreating"))
STARTED = {"startTime": "2026-11-22T11:59:00Z"}


def job_object(
    *conditions: dict[str, str], parallelism: int = 1, suspend: bool = False, **metadata: Any
) -> dict[str, Any]:
    known = {"name": "router-train-0f3c2a91", "uid": JOB_UID, "creationTimestamp": "2026-11-22T11:58:00Z", **metadata}
    spec = {"parallelism": parallelism, "completions": parallelism, "suspend": suspend}
    return {"metadata": known, "spec": spec, "status": {**STARTED, "conditions": list(conditions)}}


def condition(kind: str, status: str = "True", message: str = "", reason: str = "") -> dict[str, str]:
    found = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**found, "lastTransitionTime": "2026-11-22T11:59:30Z"}


def event(
    reason: str, message: str = "", first: str = "11:59:00", last: str = "11:59:55", type: str = "Warning"
) -> dict[str, Any]:
    """An Event of core/v1, as client-go's recorder of kubelet and controllers writes it."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "router.18a5", "creationTimestamp": f"2026-11-22T{first}Z"},
        "type": type,
        "reason": reason,
        "message": message,
        "firstTimestamp": f"2026-11-22T{first}Z",
        "lastTimestamp": f"2026-11-22T{last}Z",
        "eventTime": None,
        "count": 7,
    }
