"""Jobs and Pods that should no longer run: outdated, stuck, orphaned or disowned ones; and how Jobs are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from finetune_api.conditions import ConditionType, Reason
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.digest import DIGEST_ANNOTATION
from finetune_operator.core.plan import Child, Plan
from finetune_operator.kube.resources import JOBS, PODS, Object
from finetune_operator.pods.observed import JobView, PodView, has_started, is_lost

STOPPING_CHECK_SECONDS = 15
"""How often it is checked whether what is being stopped has ended, whatever the watches say."""
LEFTOVER_SECONDS = 30
"""What is still running so long after the report (a container that somebody added to the Pod) is deleted."""


def is_outdated(job: JobView, pods: Sequence[PodView], render: Callable[[], Sequence[Object] | None]) -> bool:
    """Whether a Job that has not started would be built differently now.

    A wrong image, priority class, node selector or Secret keeps its Pods from ever starting, and a Job's template can't
    be changed: so it is replaced if what it was built from has changed, usually its class. `render`: what
    builders.rendered returns now; None while the class does not allow it, which makes no Job outdated.
    """
    if not job.digest or job.deleting or has_started(job, pods) or (objects := render()) is None:
        return False
    return differs(job, objects)


def differs(job: JobView, objects: Sequence[Object]) -> bool:
    """Whether the Job was built from something else than these objects of builders.rendered."""
    kinds = (JOBS.kind, PODS.kind)
    digests = [body["metadata"]["annotations"][DIGEST_ANNOTATION] for body in objects if body["kind"] in kinds]
    return job.digest not in digests


def stuck_jobs(jobs: Iterable[JobView], pods: Iterable[PodView]) -> list[JobView]:
    """The deleted Jobs that a foreign finalizer keeps, and whose Pods are therefore still running."""
    running = {pod.job_uid for pod in pods if not pod.is_terminal and not pod.terminating}
    return [job for job in jobs if job.keeps_pods and job.uid in running]


def all_pods_ended(job: JobView, pods: Iterable[PodView]) -> bool:
    """Whether all of a Job's Pods have ended, even if the Job controller has not counted them yet."""
    mine = [pod for pod in pods if pod.job_uid == job.uid]
    return len(mine) >= max(1, job.parallelism) and all(pod.is_terminal for pod in mine)


def other_active_jobs(jobs: Iterable[JobView], pods: Sequence[PodView], *, keep: str | None = None) -> list[JobView]:
    """The Jobs, but for the one to keep, that run Pods or may create some, and that nobody has deleted."""
    return [job for job in jobs if job.is_active and job.name != keep and not all_pods_ended(job, pods)]


def job_to_delete(namespace: str, job: JobView) -> Child:
    """A Job to be deleted: in the background, unless a foreign finalizer would keep its Pods running."""
    return Child(job.resource, namespace, job.name, job.uid, dependents_first=bool(job.foreign_finalizers))


def jobs_to_delete(namespace: str, jobs: Iterable[JobView], pods: Iterable[PodView]) -> tuple[Child, ...]:
    """The Jobs that are not being deleted yet, and the stuck ones, which are deleted once more."""
    stuck = {job.uid for job in stuck_jobs(jobs, pods)}
    return tuple(job_to_delete(namespace, job) for job in jobs if not job.deleting or job.uid in stuck)


def stuck_job_message(job: JobView) -> str:
    """That a foreign finalizer keeps a deleted Job, and what to do."""
    return (
        f"Job {job.name} was deleted, but the finalizer {', '.join(job.foreign_finalizers)} keeps it. "
        "The operator does not wait for it. Whoever set that finalizer must remove it, or you can: kubectl patch job "
        f'{job.name} -n {job.namespace} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\''
    )


def disowned_message(job: JobView) -> str:
    """That nothing starts while a Job that lost its owner may be running, and what to do."""
    kind = job.resource.kind
    what = "may still run Pods" if job.resource == JOBS else "may still run"
    return (
        f"{kind} {job.name} {what}: somebody removed its ownerReferences, so it no longer belongs to this "
        "object and is not stopped by it. Nothing starts beside it. Wait until it has ended, or delete it: "
        f"kubectl delete {kind.lower()} {job.name} -n {job.namespace}"
    )


def orphans(pods: Iterable[PodView]) -> list[PodView]:
    """The running Pods whose Job was deleted without them, so that nothing stops them."""
    return [pod for pod in pods if pod.orphaned and not pod.is_terminal and not pod.terminating]


def orphan_message(pods: Iterable[PodView], namespace: str) -> str:
    """That nothing starts while Pods without a Job are running, and what to do."""
    names = sorted(pod.name for pod in pods)
    return (
        f"Pod {names[0]} is still running: its Job was deleted without it (--cascade=orphan). Nothing starts beside "
        "it. Wait until it has ended, or delete it: kubectl delete pod "
        f"{' '.join(names[:3])} -n {namespace}"
    )


def lost_job_message(name: str, *, is_disowned: bool) -> str:
    """That the Job of a try is gone though nothing of this object deleted it."""
    what = "lost its owner: somebody removed its ownerReferences" if is_disowned else "was deleted"
    return f"Job {name} of the last try {what}."


def active_after_end(
    jobs: Iterable[JobView], completion_time: datetime | None, now: datetime, *, at_once: bool
) -> tuple[list[JobView], datetime | None]:
    """The Jobs to delete since they are still running after the end of a run, or when to check for them."""
    active = [job for job in jobs if job.state == "Active"]
    due = (completion_time or now) + timedelta(seconds=LEFTOVER_SECONDS)
    # A time further in the future was written by a wrong clock.
    if active and not at_once and now < due <= now + timedelta(seconds=LEFTOVER_SECONDS):
        return [], due
    return active, None


def still_running(
    namespace: str,
    jobs: Sequence[JobView],
    pods: Sequence[PodView],
    disowned: Iterable[JobView],
    now: datetime,
    *,
    keep: str | None = None,
) -> str | None:
    """What of earlier tries has not ended yet, except the Job to keep and its Pods; None if everything has."""
    lost, left = [job for job in disowned if job.is_active], orphans(pods)
    if lost:
        return disowned_message(lost[0])
    if left:
        return orphan_message(left, namespace)
    if stuck := stuck_jobs(jobs, pods):
        return stuck_job_message(stuck[0])
    kept = {"", *(job.uid for job in jobs if job.name == keep and not job.deleting)}
    ending = [pod for pod in pods if pod.job_uid not in kept and not pod.is_terminal and not is_lost(pod, now)]
    if ending:
        return f"Waiting for Pod {min(pod.name for pod in ending)} of an earlier try to end."
    active = other_active_jobs(jobs, pods, keep=keep)
    return f"Waiting for Job {active[0].name} of an earlier try to be deleted." if active else None


def rests_on_absence(before: KindStatus, jobs: Iterable[JobView], plan: Plan[Any], *, is_first: bool) -> bool:
    """Whether a plan is right only if nothing runs that the cache does not know of: a watch may be open and silent.

    It starts Pods where there may be earlier ones, deletes what may have begun to run, or says that what was to be
    stopped has ended. `is_first`: nothing was ever started before, so that a life without a retry needs no live look.
    """
    was, now = (_ready_reason(status) for status in (before, plan.status))
    is_stopped = now in (Reason.SUSPENDED, Reason.CANCELLED) or was == Reason.STOPPING
    if is_stopped and was != now and not (is_first and was != Reason.STOPPING):
        return True
    if not is_first and any(body["kind"] in (JOBS.kind, PODS.kind) for body in plan.create):
        return True
    active = {job.uid for job in jobs if job.state == "Active"}
    return any(child.uid in active for child in plan.delete)


def _ready_reason(status: KindStatus) -> str | None:
    return next((one.reason for one in status.conditions if one.type == ConditionType.READY), None)
