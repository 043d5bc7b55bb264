"""The Jobs and Pods of a parent, found by ownership.

Labels only narrow the search: anybody who may make a Pod may write them. A Job counts when the parent is its
controller, a Pod when such a Job is, both by UID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from finetune_operator.core.ownership import Owner, controller, is_controlled_by, owner_selector
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import JOBS, PODS, REPLICA_SETS, Object, Resource

CONTROLLER_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""Of a Job's Pods: the Job controller sets it, and nothing takes it away."""


async def owned_jobs_and_pods(kube: Kube, owner: Owner, *controllers: str) -> tuple[list[Object], list[Object]]:
    """The parent's Jobs and their Pods, and what has not ended yet of Jobs that are gone.

    That includes Pods whose Job was deleted with --cascade=orphan, to be waited for; they answer for nothing.
    `controllers`: UIDs that may stand in for the parent's, as controllers of Jobs that outlive it.
    """
    labelled_jobs, labelled_pods = await asyncio.gather(
        _labelled(kube, JOBS, owner.namespace, owner.uid), _labelled(kube, PODS, owner.namespace, owner.uid)
    )
    uids = {owner.uid, *controllers}
    jobs = [job for job in labelled_jobs if any(is_controlled_by(job, uid) for uid in uids)]
    owned = {job["metadata"]["uid"] for job in jobs}
    strangers = {job["metadata"]["uid"] for job in labelled_jobs} - owned
    unlabelled, gone = await _unlabelled_and_gone(kube, owner.namespace, labelled_pods, owned | strangers, uids)
    jobs += unlabelled
    owned |= {job["metadata"]["uid"] for job in unlabelled}
    pods = [pod for pod in labelled_pods if (by := controller(pod)) is not None and by.uid in owned | gone]
    return jobs, [*pods, *(pod for pod in labelled_pods if _is_orphan(pod))]


async def disowned_job_and_pods(
    kube: Kube, owner: Owner, name: str | None, owned: Sequence[Object]
) -> tuple[list[Object], list[Object]]:
    """The parent's Job of this name, and its Pods, where the Job is no longer the parent's (`owned`).

    Somebody took its ownerReferences away: it runs on, and answers for nothing. The name is one that only a child of
    this parent has (children.child_name).
    """
    if name is None or any(job["metadata"]["name"] == name for job in owned):
        return [], []
    jobs = await kube.list(JOBS, owner.namespace, fields={"metadata.name": name})
    uids = {job["metadata"]["uid"] for job in jobs}
    listed = [await kube.list(PODS, owner.namespace, {CONTROLLER_UID_LABEL: uid}) for uid in uids]
    pods = [pod for found in listed for pod in found if (by := controller(pod)) is not None and by.uid in uids]
    return jobs, pods


async def owned_pods_of_deployment(kube: Kube, owner: Owner, deployment: Object | None) -> list[Object]:
    """The Pods of the parent's Deployment, by way of its ReplicaSets."""
    if deployment is None or not is_controlled_by(deployment, owner.uid):
        return []
    replica_sets, pods = await asyncio.gather(
        _labelled(kube, REPLICA_SETS, owner.namespace, owner.uid), _labelled(kube, PODS, owner.namespace, owner.uid)
    )
    uid = deployment["metadata"]["uid"]
    owned = {item["metadata"]["uid"] for item in replica_sets if is_controlled_by(item, uid)}
    return [pod for pod in pods if (by := controller(pod)) is not None and by.uid in owned]


def _is_orphan(pod: Object) -> bool:
    """Whether the Pod was a Job's, which let it go when it was deleted, and still runs."""
    labels, phase = pod["metadata"].get("labels", {}), pod.get("status", {}).get("phase")
    return controller(pod) is None and CONTROLLER_UID_LABEL in labels and phase not in ("Succeeded", "Failed")


async def _labelled(kube: Kube, resource: Resource, namespace: str, owner_uid: str) -> list[Object]:
    return await kube.list(resource, namespace, owner_selector(owner_uid))


async def _unlabelled_and_gone(
    kube: Kube, namespace: str, pods: list[Object], known: set[str], uids: set[str]
) -> tuple[list[Object], set[str]]:
    """Of the other Jobs that made these Pods: the parent's, which lost their labels, and the UIDs of those deleted.

    The garbage collector takes the Pods of deleted ones away, by and by; until then they may write. A Pod of a Job that
    is there and is somebody else's has nothing to do with the parent.
    """
    controllers = {by for pod in pods if (by := controller(pod)) is not None and by.kind == JOBS.kind}
    unknown = {by.uid: by for by in controllers if by.uid not in known}
    found = await asyncio.gather(
        *(kube.list(JOBS, namespace, fields={"metadata.name": by.name}) for by in unknown.values())
    )
    there = {job["metadata"]["uid"]: job for jobs in found for job in jobs}
    mine = [job for uid, job in there.items() if uid in unknown and any(is_controlled_by(job, one) for one in uids)]
    return mine, unknown.keys() - there.keys()
