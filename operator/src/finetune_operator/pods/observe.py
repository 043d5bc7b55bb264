"""The Jobs and Pods of a parent, found by ownership.

Labels only narrow the search: anyone who may create a Pod can set them. A Job counts when the parent is its
controller, a Pod when such a Job is or, if it runs without one, the parent itself, all by UID.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from finetune_operator.core.ownership import Owner, controller, is_controlled_by, owner_selector
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import EVENTS, JOBS, PODS, REPLICA_SETS, Object, Resource
from finetune_operator.pods.observed import JobView, PodView, runs_alone
from finetune_operator.pods.warning_events import START_SECONDS, WarningEvent, current_warning, lacks_pods

CONTROLLER_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""The Job controller sets it on a Job's Pods, and nothing removes it."""
JOB_TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""On a Job's Pod until its end is counted in the Job's status."""


async def owned_jobs_and_pods(
    reader: Reader, owner: Owner, *controllers: str, running: Collection[str] = ()
) -> tuple[list[Object], list[Object]]:
    """The parent's Jobs and their Pods, and what has not ended yet of Jobs that are gone.

    That includes Pods whose Job was deleted with --cascade=orphan: they are waited for, and their results don't count.
    `controllers`: UIDs besides the parent's, of controllers of Jobs that outlive it. `running`: names of the Jobs whose
    end is not recorded.

    Jobs and Pods have separate watches, and one may be ahead. How a Job ended can be seen in its Pods: where they don't
    show it yet, both are read from the API server.
    """
    jobs, pods = await _jobs_and_pods(reader, owner, controllers, running)
    if _fit_together(jobs, pods):
        return jobs, pods
    return await _jobs_and_pods(reader.live, owner, controllers, running)


def _fit_together(jobs: Sequence[Object], pods: Sequence[Object]) -> bool:
    """Whether every Job that has ended has Pods, and these have ended too."""
    running: dict[str, bool] = {}
    for pod in pods:
        by, has_ended = controller(pod), pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if by is not None:
            running[by.uid] = running.get(by.uid, False) or not has_ended
    return not any(running.get(job["metadata"]["uid"], True) for job in jobs if _has_ended(job))


def _has_ended(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)


async def _jobs_and_pods(
    reader: Reader, owner: Owner, controllers: Collection[str], running: Collection[str]
) -> tuple[list[Object], list[Object]]:
    # One after the other: both are in memory as a rule, and a task of its own costs more than such a read.
    labelled_jobs = await _labelled(reader, JOBS, owner.namespace, owner.uid)
    labelled_pods = await _labelled(reader, PODS, owner.namespace, owner.uid)
    uids = {owner.uid, *controllers}
    jobs = [job for job in labelled_jobs if any(is_controlled_by(job, uid) for uid in uids)]
    owned = {job["metadata"]["uid"] for job in jobs}
    strangers = {job["metadata"]["uid"] for job in labelled_jobs} - owned
    unlabelled, gone = await _unlabelled_and_gone(reader, owner.namespace, labelled_pods, owned | strangers, uids)
    jobs += unlabelled
    owned |= {job["metadata"]["uid"] for job in unlabelled}
    theirs = owned | gone
    pods = [pod for pod in labelled_pods if is_alone(pod, owner) or ((by := controller(pod)) and by.uid in theirs)]
    hidden = await _hidden(reader, owner.namespace, jobs, pods, running)
    return jobs, [*pods, *hidden, *(pod for pod in labelled_pods if _is_orphan(pod))]


async def jobs_and_pods(
    reader: Reader, owner: Owner, newest: str | None, *controllers: str, running: Collection[str] = ()
) -> tuple[list[Object], list[Object], list[Object]]:
    """The parent's Jobs, the Pods to wait for, and its Job that it no longer controls.

    `newest`: name of the newest Job, which only a child of this parent can have (child_name), so that it is found even
    without its labels. If its ownerReferences were removed, it runs on, and its result does not count.
    """
    jobs, pods = await owned_jobs_and_pods(reader, owner, *controllers, running=running)
    if newest is None or any(job["metadata"]["name"] == newest for job in jobs):
        return jobs, pods, []
    mine, theirs, disowned = await job_by_name(reader, owner, newest, *controllers)
    return [*jobs, *mine], [*pods, *theirs], disowned


async def job_by_name(
    reader: Reader, owner: Owner, name: str, *controllers: str
) -> tuple[list[Object], list[Object], list[Object]]:
    """The Job of this name if the parent controls it; or else that Job's Pods, and the Job."""
    found = await reader.list(JOBS, owner.namespace, fields={"metadata.name": name})
    mine = [job for job in found if any(is_controlled_by(job, uid) for uid in (owner.uid, *controllers))]
    disowned = [job for job in found if job not in mine]
    uids = {job["metadata"]["uid"] for job in disowned}
    theirs = [pod for uid in sorted(uids) for pod in await _pods_of(reader, owner.namespace, uid)]
    return mine, theirs, disowned


async def pod_by_name(reader: Reader, owner: Owner, name: str) -> tuple[list[Object], list[Object]]:
    """The Pod of this name that runs without a Job: the parent's, or one that it does not control (any more)."""
    found = await reader.list(PODS, owner.namespace, fields={"metadata.name": name})
    mine = [pod for pod in found if is_alone(pod, owner)]
    return mine, [pod for pod in found if pod not in mine]


def is_alone(pod: Object, owner: Owner) -> bool:
    """Whether this is a Pod of the parent's that runs without a Job."""
    return runs_alone(pod) and is_controlled_by(pod, owner.uid)


async def owned_pods_of_deployment(reader: Reader, owner: Owner, deployment: Object | None) -> list[Object]:
    """The Pods of the parent's Deployment, by way of its ReplicaSets."""
    if deployment is None or not is_controlled_by(deployment, owner.uid):
        return []
    replica_sets, pods = await asyncio.gather(
        _labelled(reader, REPLICA_SETS, owner.namespace, owner.uid), _labelled(reader, PODS, owner.namespace, owner.uid)
    )
    uid = deployment["metadata"]["uid"]
    owned = {item["metadata"]["uid"] for item in replica_sets if is_controlled_by(item, uid)}
    return [pod for pod in pods if (by := controller(pod)) is not None and by.uid in owned]


async def _hidden(
    reader: Reader, namespace: str, jobs: list[Object], pods: list[Object], running: Collection[str]
) -> list[Object]:
    """The Pods that lost our labels: anyone who may patch a Pod can remove them, and the Pod runs on.

    A Job's status counts the Pods that run and that have ended; if fewer are found, they are listed by the Job
    controller's own label, without which it would release them. Once a Job's end is recorded, Pods that have ended are
    no longer missed.
    """
    counted = {uid for job in jobs for uid in _counted_as_ended(job)}
    found: Counter[str] = Counter()
    active: Counter[str] = Counter()
    for pod in pods:
        if (by := controller(pod)) is not None:
            found[by.uid] += 1
            active[by.uid] += _counts_as_active(pod, counted)
    known = {pod["metadata"]["uid"] for pod in pods}
    short = []
    for job in jobs:
        uid, counts = job["metadata"]["uid"], job.get("status", {})
        every = sum(counts.get(name, 0) for name in ("active", "succeeded", "failed"))
        is_running = job["metadata"]["name"] in running
        if counts.get("active", 0) > active[uid] or (is_running and every > found[uid]):
            short.append(uid)
    hidden = await asyncio.gather(*(_pods_of(reader, namespace, uid) for uid in short))
    return [pod for listed in hidden for pod in listed if pod["metadata"]["uid"] not in known]


def _counts_as_active(pod: Object, counted_as_ended: set[str]) -> bool:
    """Whether the Job's status may count the Pod among the active ones: the end of it is counted a second later."""
    meta = pod["metadata"]
    if pod.get("status", {}).get("phase") in ("Pending", "Running"):
        return True
    return JOB_TRACKING_FINALIZER in meta.get("finalizers", ()) and meta["uid"] not in counted_as_ended


def _counted_as_ended(job: Object) -> list[str]:
    """UIDs of Pods whose end the Job controller has seen, and whose finalizer it is about to remove."""
    uncounted = job.get("status", {}).get("uncountedTerminatedPods") or {}
    return [*uncounted.get("succeeded", ()), *uncounted.get("failed", ())]


async def _pods_of(reader: Reader, namespace: str, job_uid: str) -> list[Object]:
    listed = await reader.list(PODS, namespace, {CONTROLLER_UID_LABEL: job_uid})
    return [pod for pod in listed if is_controlled_by(pod, job_uid)]


def _is_orphan(pod: Object) -> bool:
    """Whether the Pod is still running although its Job, which was deleted, has released it."""
    labels, phase = pod["metadata"].get("labels", {}), pod.get("status", {}).get("phase")
    return controller(pod) is None and CONTROLLER_UID_LABEL in labels and phase not in ("Succeeded", "Failed")


async def _labelled(reader: Reader, resource: Resource, namespace: str, owner_uid: str) -> list[Object]:
    return await reader.list(resource, namespace, owner_selector(owner_uid))


async def _unlabelled_and_gone(
    reader: Reader, namespace: str, pods: list[Object], known: set[str], uids: set[str]
) -> tuple[list[Object], set[str]]:
    """Among unknown Jobs of these Pods: those of the parent that lost their labels, and the UIDs of deleted ones.

    The garbage collector deletes the Pods of deleted Jobs eventually; until then they may write. A Pod of an existing
    Job of another owner has nothing to do with the parent.
    """
    controllers = {by for pod in pods if (by := controller(pod)) is not None and by.kind == JOBS.kind}
    unknown = {by.uid: by for by in controllers if by.uid not in known}
    found = await asyncio.gather(
        *(reader.list(JOBS, namespace, fields={"metadata.name": by.name}) for by in unknown.values())
    )
    there = {job["metadata"]["uid"]: job for jobs in found for job in jobs}
    mine = [job for uid, job in there.items() if uid in unknown and any(is_controlled_by(job, one) for one in uids)]
    return mine, unknown.keys() - there.keys()


MOST_SUBJECTS = 4
"""The Pods of a Job are alike: what a few of them report is enough."""
MOST_EVENTS = 50


async def observe_warnings(
    reader: Reader, namespace: str, jobs: Sequence[JobView], pods: Sequence[PodView], now: datetime
) -> tuple[WarningEvent, ...]:
    """The newest warning about each Job that lacks Pods and each Pod that has a node but has not started."""
    subjects = [
        *(job.uid for job in jobs if lacks_pods(job, pods, now)),
        *(pod.uid for pod in pods if _waits(pod, now)),
    ]
    warnings = await asyncio.gather(*(_newest(reader, namespace, uid, now) for uid in subjects[:MOST_SUBJECTS]))
    return tuple(warning for warning in warnings if warning is not None)


async def _newest(reader: Reader, namespace: str, uid: str, now: datetime) -> WarningEvent | None:
    events = await reader.list(EVENTS, namespace, fields={"involvedObject.uid": uid}, limit=MOST_EVENTS)
    return current_warning(uid, events, now)


def _waits(pod: PodView, now: datetime) -> bool:
    """Whether a Pod that has a node should have started by now."""
    if pod.phase != "Pending" or pod.scheduled_time is None or pod.terminating or pod.created is None:
        return False
    return now >= pod.created + timedelta(seconds=START_SECONDS)
