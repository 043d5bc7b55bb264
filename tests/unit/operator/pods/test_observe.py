"""Whose Jobs and Pods these are: by controller and UID, whatever labels say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observe import jobs_and_pods, owned_jobs_and_pods, owned_pods_of_deployment
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.states import OWNER

NAMESPACED = "/apis/batch/v1/namespaces/team-a/jobs", "/api/v1/namespaces/team-a/pods"
REPLICA_SETS = "/apis/apps/v1/namespaces/team-a/replicasets"


class Cluster(FakeKube):
    """Lists these objects; those that are `hidden` carry none of our labels."""

    def __init__(self, jobs: list[Object], pods: list[Object], hidden: list[Object] | None = None) -> None:
        super().__init__()
        self.asked_for_hidden = 0
        self.jobs, self.pods, self.hidden = jobs, pods, hidden or []

    async def _request(self, method: str, path: str, **given: Any) -> Object:
        query = given.get("query") or {}
        uid = query.get("labelSelector", "").removeprefix("batch.kubernetes.io/controller-uid=")
        if uid != query.get("labelSelector", ""):
            self.asked_for_hidden += 1
            every = [*self.pods, *self.hidden]
            return {"items": [pod for pod in every if is_controlled_by(pod, uid)]}
        if "fieldSelector" in query:
            name = query["fieldSelector"].removeprefix("metadata.name=")
            return {"items": [job for job in [*self.jobs, *self.hidden] if job["metadata"]["name"] == name]}
        return {"items": {NAMESPACED[0]: self.jobs, NAMESPACED[1]: self.pods}[path]}


def item(name: str, by: Object | None, uid: str | None = None) -> Object:
    owners = {} if by is None else {"ownerReferences": [by]}
    return {"metadata": {"name": name, "uid": uid or f"uid-of-{name}", **owners}}


def of_parent(uid: str = OWNER.uid) -> Object:
    return controlled_by("FineTuneJob", OWNER.name, uid)


def of_job(name: str, uid: str | None = None) -> Object:
    return controlled_by("Job", name, uid or f"uid-of-{name}")


async def names(cluster: Cluster, *controllers: str, running: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    jobs, pods = await owned_jobs_and_pods(cluster, OWNER, *controllers, running=running)
    return [job["metadata"]["name"] for job in jobs], [pod["metadata"]["name"] for pod in pods]


@pytest.mark.parametrize("phase", ["Running", "Pending"])
async def test_a_pod_that_lost_our_labels_is_found_by_its_job(phase: str) -> None:
    """Below Kubernetes 1.30 nothing protects labels, and what runs is counted and waited for."""
    job = {**item("train-1", of_parent()), "status": {"active": 2}}
    seen = {**item("train-1-0", of_job("train-1")), "status": {"phase": phase}}
    hidden = {**item("train-1-1", of_job("train-1")), "status": {"phase": phase}}
    cluster = Cluster([job], [seen], [hidden])
    assert await names(cluster) == (["train-1"], ["train-1-0", "train-1-1"])
    alone = Cluster([{**job, "status": {"active": 1}}], [seen], [hidden])
    assert await names(alone) == (["train-1"], ["train-1-0"])


@pytest.mark.parametrize("counts", [{"succeeded": 1}, {"failed": 1}, {"active": 1, "failed": 1}])
async def test_a_pod_that_lost_our_labels_and_ended_before_the_next_look_is_found_too(counts: dict[str, int]) -> None:
    """What it reported is the run's result, and what it used is counted."""
    job = {**item("train-1", of_parent()), "status": counts}
    seen = [{**item("train-1-0", of_job("train-1")), "status": {"phase": "Running"}}] if "active" in counts else []
    hidden = {**item("train-1-1", of_job("train-1")), "status": {"phase": "Succeeded"}}
    found = await names(Cluster([job], seen, [hidden]), running=["train-1"])
    assert found == (["train-1"], [*(["train-1-0"] if seen else []), "train-1-1"])


@pytest.mark.parametrize(
    ("counts", "phase", "running"),
    [
        ({"active": 1}, "Running", ["train-1"]),
        ({"succeeded": 1}, "Succeeded", ["train-1"]),
        ({}, "Succeeded", ["train-1"]),
        ({"failed": 2}, "Failed", []),
    ],
    ids=["it runs", "it has ended", "the Job doesn't know yet", "a Pod was deleted, and the end is recorded"],
)
async def test_a_look_at_labelled_pods_costs_no_list_more(
    counts: dict[str, int], phase: str, running: list[str]
) -> None:
    job = {**item("train-1", of_parent()), "status": counts}
    cluster = Cluster([job], [{**item("train-1-0", of_job("train-1")), "status": {"phase": phase}}])
    assert await names(cluster, running=running) == (["train-1"], ["train-1-0"])
    assert cluster.asked_for_hidden == 0


@pytest.mark.parametrize(
    ("uncounted", "held", "is_asked"), [([], True, False), (["uid-of-train-1-0"], True, True), ([], False, True)]
)
async def test_a_pod_that_has_just_ended_is_active_by_the_jobs_status_until_it_is_counted(
    uncounted: list[str], held: bool, is_asked: bool
) -> None:
    """Nothing is missed then, so nothing is asked for; what runs unlabelled beside it is."""
    counted = {"uncountedTerminatedPods": {"succeeded": uncounted}} if uncounted else {}
    job = {**item("train-1", of_parent()), "status": {"active": 1, **counted}}
    ended = {**item("train-1-0", of_job("train-1")), "status": {"phase": "Succeeded"}}
    if held:
        ended["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    hidden = {**item("train-1-1", of_job("train-1")), "status": {"phase": "Running"}}
    found = ["train-1-0", "train-1-1"] if is_asked else ["train-1-0"]
    assert await names(Cluster([job], [ended], [hidden])) == (["train-1"], found)


@pytest.mark.parametrize(
    ("by", "counts"),
    [
        (of_parent(), True),
        (None, False),
        (of_parent("of-a-successor"), False),
        ({**of_parent(), "controller": False}, False),
        (controlled_by("FineTuneClass", "cpu", "u-cpu"), False),
    ],
    ids=["the parent's", "made by hand", "a namesake's", "owned, not controlled", "the class's"],
)
async def test_a_job_counts_when_the_parent_is_its_controller_and_its_pods_with_it(
    by: Object | None, counts: bool
) -> None:
    cluster = Cluster([item("train-1", by)], [item("train-1-0", of_job("train-1"))])
    assert await names(cluster) == ((["train-1"], ["train-1-0"]) if counts else ([], []))


async def test_a_job_that_outlives_its_parent_counts_where_that_is_asked_for() -> None:
    cluster = Cluster([item("delete-1", controlled_by("FineTuneClass", "cpu", "u-cpu"))], [])
    assert await names(cluster, "u-cpu") == (["delete-1"], [])


@pytest.mark.parametrize(
    ("by", "counts"),
    [
        (None, False),
        (of_job("train-1", "another-uid"), True),
        (of_job("gone"), True),
        (of_job("theirs"), False),
        (controlled_by("ReplicaSet", "train-1", "uid-of-train-1x"), False),
        ({**of_job("train-1"), "controller": False}, False),
    ],
    ids=[
        "made by hand, with every label",
        "of an earlier Job of the name",
        "of a Job that is gone",
        "of somebody's Job",
        "of something else",
        "owned, not controlled",
    ],
)
async def test_a_pod_counts_by_its_jobs_uid_or_while_it_ends_after_its_job(by: Object | None, counts: bool) -> None:
    """What still runs of a Job that was deleted is waited for; it never speaks for another Job (PodView.job_uid)."""
    cluster = Cluster([item("train-1", of_parent())], [item("p", by)], hidden=[item("theirs", None)])
    assert (await names(cluster))[1] == (["p"] if counts else [])


async def test_a_job_that_lost_its_labels_is_found_by_its_pods() -> None:
    """`kubectl label job train-1 finetune.dev/owner-uid-`: it runs on, and nothing may start beside it."""
    cluster = Cluster([], [item("train-1-0", of_job("train-1"))], hidden=[item("train-1", of_parent())])
    assert await names(cluster) == (["train-1"], ["train-1-0"])


@pytest.mark.parametrize("labelled", [True, False])
async def test_a_job_whose_owner_references_were_removed_is_found_by_its_name(labelled: bool) -> None:
    """It answers for nothing, but its Pods run."""
    jobs, pods = [item("train-1", None)], [item("train-1-0", of_job("train-1")), item("other", of_job("other"))]
    cluster = Cluster(jobs if labelled else [], pods, hidden=[] if labelled else jobs)
    assert await names(cluster) == ([], ["other"]), "of a Job that is gone"
    mine, theirs, disowned = await jobs_and_pods(cluster, OWNER, "train-1")
    assert mine == []
    assert [one["metadata"]["name"] for one in [*disowned, *theirs]] == ["train-1", "other", "train-1-0"]


@pytest.mark.parametrize("name", [None, "gone", "train-1"])
async def test_a_job_that_is_owned_or_gone_was_not_disowned(name: str | None) -> None:
    jobs, *others = await jobs_and_pods(Cluster([item("train-1", of_parent())], []), OWNER, name)
    assert ([job["metadata"]["name"] for job in jobs], others) == (["train-1"], [[], []])


async def test_a_job_that_lost_its_labels_is_found_by_its_name_while_it_has_no_pods() -> None:
    """It waits in a queue, or for a quota. It is the parent's still, and nobody else's."""
    jobs, *others = await jobs_and_pods(Cluster([], [], hidden=[item("train-1", of_parent())]), OWNER, "train-1")
    assert ([job["metadata"]["name"] for job in jobs], others) == (["train-1"], [[], []])


@pytest.mark.parametrize("foreign", ["the Deployment", "the ReplicaSet", "the Pod", None])
async def test_a_serving_pod_counts_by_way_of_its_replica_set_and_deployment(foreign: str | None) -> None:
    deployment = item("router", None if foreign == "the Deployment" else of_parent(), "d")
    replica_set = item(
        "router-1", controlled_by("Deployment", "router", "x" if foreign == "the ReplicaSet" else "d"), "r"
    )
    pod = item("router-1-x", None if foreign == "the Pod" else controlled_by("ReplicaSet", "router-1", "r"))
    kube = FakeKube({f"GET {REPLICA_SETS}": {"items": [replica_set]}, f"GET {NAMESPACED[1]}": {"items": [pod]}})
    assert len(await owned_pods_of_deployment(kube, OWNER, deployment)) == (foreign is None)
    assert await owned_pods_of_deployment(kube, OWNER, None) == []


@pytest.mark.parametrize(
    ("kind", "path"),
    [("Job", NAMESPACED[0]), ("ConfigMap", "/api/v1/namespaces/team-a/configmaps")],
)
@pytest.mark.parametrize(("by", "ours"), [(of_parent(), True), (of_parent("another"), False), (None, False)])
async def test_a_name_that_somebody_else_has_taken_is_not_ours(
    kind: str, path: str, by: Object | None, ours: bool
) -> None:
    """Names follow from UIDs, which anybody can read: what is there under one may be laid there for us to use."""
    api_version = "batch/v1" if kind == "Job" else "v1"
    body = {"apiVersion": api_version, "kind": kind, **item("train-1", of_parent())}
    body["metadata"]["namespace"] = "team-a"
    exists = ApiError(409, "AlreadyExists", "it is there")
    kube = FakeKube({f"POST {path}": exists, f"GET {path}": {"items": [item("train-1", by)]}})
    if ours:
        await kube.create_once(body)
        return
    with pytest.raises(ApiError, match="already exists and does not belong to this object") as raised:
        await kube.create_once(body)
    assert raised.value.reason == "NameConflict"
