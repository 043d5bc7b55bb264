"""Whether a Job has finished, and whether it succeeded: our own containers decide, whatever sidecars do.

A sidecar that a mesh or a policy adds, and that does not exit by itself, keeps its Pod Running and its Job Active
forever. So a Pod's outcome is known once our container has been over for a while, and the Pod is stopped with its Job.
(The kubelet stops native sidecars by itself.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from finetune_operator.pods.observed import JobView, PodView

SIDECAR_SECONDS = 10
"""How long the kubelet may take to report that a Pod has ended after its last container did."""
GANG_SECONDS = 60
"""How long the others of a gang may take to notice that one of them failed, which Kubernetes does not see."""


def job_finished(job: JobView, pods: Sequence[PodView], now: datetime) -> bool:
    """Whether none of our containers runs in the Job's Pods, or one of a gang failed and the others don't notice."""
    if any(sidecars_alone(pod, now, GANG_SECONDS) and pod.exit_code != 0 for pod in pods):
        return True
    return len(pods) >= max(1, job.parallelism) and all(pod.is_terminal or sidecars_alone(pod, now) for pod in pods)


def job_succeeded(job: JobView, pods: Sequence[PodView], now: datetime) -> bool:
    """Whether a Job succeeded: it completed, or would have, if only our containers were in its Pods."""
    if job.state == "Complete":
        return True
    if job.state == "Failed" and all(pod.phase != "Failed" for pod in pods):
        return False  # No end of a Pod explains it.
    return len(pods) == job.parallelism and job_finished(job, pods, now) and all(pod.exit_code == 0 for pod in pods)


def sidecars_alone(pod: PodView, now: datetime, seconds: int = SIDECAR_SECONDS) -> bool:
    """Whether our container of a Pod ended at least `seconds` ago, and only containers that are not ours still run."""
    since = sidecars_alone_since(pod)
    return since is not None and now >= since + timedelta(seconds=seconds)


def sidecars_alone_since(pod: PodView) -> datetime | None:
    """When our container exited in a Pod that its sidecars keep running; None for every other Pod."""
    return None if pod.is_terminal or pod.terminating or pod.exit_code is None else pod.ended_time


def next_sidecar_check(pods: Iterable[PodView], now: datetime) -> datetime | None:
    """When the sidecars of a Pod will next have been alone for long enough; None if each has been already."""
    checks = [
        since + timedelta(seconds=seconds)
        for pod in pods
        if (since := sidecars_alone_since(pod)) is not None
        for seconds in (SIDECAR_SECONDS, *((GANG_SECONDS,) if pod.exit_code != 0 else ()))
    ]
    return min((check for check in checks if check > now), default=None)


def sidecar_message(pods: Sequence[PodView]) -> str:
    """Which containers that are not ours keep Pods from ending, or don't start beside ours, with a space before it."""
    stuck = next((pod for pod in pods if pod.started_time is not None and pod.waiting_foreign), None)
    if stuck is not None:
        why = f"{stuck.waiting_reason}: {stuck.waiting_message}" if stuck.waiting_message else stuck.waiting_reason
        return (
            f" Container {stuck.waiting_foreign} of Pod {stuck.name}, which something else added, does not start "
            f"({why}); the operator's own container runs without it."
        )
    kept = [pod for pod in pods if sidecars_alone_since(pod) is not None and pod.foreign_running]
    if not kept:
        return ""
    names = ", ".join(sorted({name for pod in kept for name in pod.foreign_running}))
    return (
        f" Container {names} of Pod {kept[0].name}, which something else added, still runs; it is stopped with the Pod."
    )
