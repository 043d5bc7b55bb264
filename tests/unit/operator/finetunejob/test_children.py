"""Which Jobs and Pods are a FineTuneJob's: its preflight is a Pod that it controls itself."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.finetunejob.observe import Children, observe_children
from finetune_operator.kube.resources import JOBS, PODS, Object
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.states import OWNER

NAME = "router-preflight-1"
NAMESPACE = "namespaces/team-a"


class Cluster(FakeKube):
    """Lists these objects by their labels; the `hidden` ones have none, and are found by their names only."""

    def __init__(
        self, jobs: tuple[Object, ...] = (), pods: tuple[Object, ...] = (), hidden: tuple[Object, ...] = ()
    ) -> None:
        super().__init__()
        self.listed, self.hidden = {"jobs": jobs, "pods": pods}, hidden
        self.by_name: list[str] = []

    async def _request(self, method: str, path: str, **given: Any) -> Object:
        plural, query = path.rpartition("/")[2], given.get("query") or {}
        if "fieldSelector" not in query:
            return {"items": list(self.listed[plural]) if "finetune.dev" in query.get("labelSelector", "") else []}
        self.by_name.append(plural)
        name = query["fieldSelector"].removeprefix("metadata.name=")
        every = [*self.listed[plural], *(item for item in self.hidden if item["kind"].lower() + "s" == plural)]
        return {"items": [item for item in every if item["metadata"]["name"] == name]}


def item(kind: str, name: str = NAME, by: Object | None = None) -> Object:
    owners = {} if by is None else {"ownerReferences": [by]}
    meta = {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": "2026-11-22T11:59:00Z", **owners}
    return {"kind": kind, "metadata": meta}


def of_parent(uid: str = OWNER.uid) -> Object:
    return controlled_by("FineTuneJob", OWNER.name, uid)


def names(found: Children) -> tuple[list[str], list[str], list[str]]:
    pods = [pod["metadata"]["name"] for pod in found.pods]
    return [job.name for job in found.jobs], pods, [job.name for job in found.disowned]


async def test_a_pod_that_the_job_controls_is_one_of_its_own_and_no_request_more_is_made() -> None:
    cluster = Cluster(pods=(item("Pod", by=of_parent()),))
    found = await observe_children(cluster, OWNER, NAME)
    assert names(found) == ([NAME], [NAME], [])
    assert [job.resource for job in found.jobs] == [PODS]
    assert cluster.by_name == []


@pytest.mark.parametrize(
    "by",
    [None, of_parent("uid-of-another"), controlled_by("Evaluation", OWNER.name, OWNER.uid)],
    ids=["by hand", "of a job of the same name that is gone", "of another kind"],
)
async def test_a_pod_with_our_labels_that_the_job_does_not_control_does_not_count(by: Object | None) -> None:
    found = await observe_children(Cluster(pods=(item("Pod", "by-hand", by),)), OWNER, None)
    assert names(found) == ([], [], [])


async def test_the_newest_pod_is_found_by_its_name_without_its_labels() -> None:
    """Somebody removed them, or the watch has not delivered it yet: that is no proof that it is gone."""
    found = await observe_children(Cluster(hidden=(item("Pod", by=of_parent()),)), OWNER, NAME)
    assert names(found) == ([NAME], [NAME], [])


async def test_the_newest_pod_without_its_owner_is_waited_for_and_says_nothing() -> None:
    found = await observe_children(Cluster(hidden=(item("Pod"),)), OWNER, NAME)
    assert names(found) == ([], [NAME], [NAME])
    assert [job.resource for job in found.disowned] == [PODS]


async def test_the_preflight_job_of_an_earlier_release_is_read_as_it_was() -> None:
    """Its Pod has the Job as its controller, and another name."""
    pod = item("Pod", f"{NAME}-x7k2p", controlled_by("Job", NAME, f"uid-of-{NAME}"))
    found = await observe_children(Cluster((item("Job", by=of_parent()),), (pod,)), OWNER, NAME)
    assert names(found) == ([NAME], [f"{NAME}-x7k2p"], [])
    assert [job.resource for job in found.jobs] == [JOBS]


async def test_what_is_gone_is_looked_for_as_a_pod_and_as_a_job() -> None:
    cluster = Cluster()
    assert names(await observe_children(cluster, OWNER, NAME)) == ([], [], [])
    assert sorted(cluster.by_name) == ["jobs", "pods"]
