"""Jobs and Pods come by two watches, and one may be ahead: where they don't fit together, both are read live, once."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.ownership import OWNER_UID_LABEL, labels
from finetune_operator.kube.cache import Cache
from finetune_operator.kube.cached_client import CachedKube
from finetune_operator.kube.resources import JOBS, PODS, Object
from finetune_operator.pods.observe import owned_jobs_and_pods
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.states import OWNER

MANAGED = {"app.kubernetes.io/managed-by": frozenset({"finetune-operator"})}


def job(version: int, *, is_complete: bool) -> Object:
    conditions = [{"type": "Complete", "status": "True"}] if is_complete else []
    return {
        **_object("train-1", version, controlled_by("FineTuneJob", OWNER.name, OWNER.uid)),
        "status": {"conditions": conditions},
    }


def pod(version: int, phase: str, index: int = 0) -> Object:
    return {
        **_object(f"train-1-{index}", version, controlled_by("Job", "train-1", "uid-of-train-1")),
        "status": {"phase": phase},
    }


def _object(name: str, version: int, by: Object) -> Object:
    meta = {"name": name, "namespace": "team-a", "uid": f"uid-of-{name}", "resourceVersion": str(version)}
    return {"metadata": {**meta, "labels": labels(OWNER, "train"), "ownerReferences": [by]}}


class Watched(CachedKube):
    """A client whose cache has what its watches have told, in front of an API server where everything has ended."""

    def __init__(self) -> None:
        super().__init__(None, Cache({JOBS: MANAGED, PODS: MANAGED}, OWNER_UID_LABEL))
        self.reads: list[str] = []
        for resource in (JOBS, PODS):
            self.cache.begin_list(resource)
            self.cache.end_list(resource, "1")
            self.cache.set_connected(resource, True)

    async def _request(self, method: str, path: str, **_: Any) -> Object:
        self.reads.append(path.rpartition("/")[2])
        items = [job(9, is_complete=True)] if path.endswith("/jobs") else [pod(8, "Succeeded"), pod(7, "Succeeded", 1)]
        return {"items": items, "metadata": {"resourceVersion": "9"}}

    async def phases(self) -> list[str]:
        """Of the Pods, as they are observed."""
        _, pods = await owned_jobs_and_pods(self, OWNER)
        return [one["status"]["phase"] for one in pods]


def told(*events: Object) -> Watched:
    """The Job's end was told, and of its Pods these events."""
    kube = Watched()
    kube.cache.apply_event(JOBS, "ADDED", job(9, is_complete=True))
    for event in events:
        kube.cache.apply_event(PODS, "MODIFIED", event)
    return kube


@pytest.mark.parametrize(
    "events",
    [(pod(5, "Running"), pod(7, "Succeeded", 1)), (), (pod(5, "Running"), pod(6, "Running", 1))],
    ids=["one is late", "none is told of", "both are late"],
)
async def test_how_a_job_ended_is_seen_in_its_pods_although_their_watch_is_behind(events: tuple[Object, ...]) -> None:
    kube = told(*events)
    assert await kube.phases() == ["Succeeded", "Succeeded"]
    assert kube.reads == ["jobs", "pods"]
    assert await kube.phases() == ["Succeeded", "Succeeded"]
    assert kube.reads == ["jobs", "pods"], "once"


async def test_an_event_that_was_lost_is_made_up_for_by_a_live_read() -> None:
    """The watch goes on after it: only the end of one Pod was never told."""
    kube = told(pod(5, "Running"), pod(7, "Succeeded", 1))
    kube.cache.heard_from(PODS)
    assert await kube.phases() == ["Succeeded", "Succeeded"]


async def test_an_event_that_comes_twice_or_late_changes_nothing_and_costs_no_read() -> None:
    ended = (pod(8, "Succeeded"), pod(7, "Succeeded", 1))
    kube = told(*ended, *ended, pod(5, "Running"))
    assert await kube.phases() == ["Succeeded", "Succeeded"]
    assert kube.reads == []


async def test_pods_that_have_ended_before_their_job_is_told_to_have_cost_no_read() -> None:
    """A second passes until the Job controller has counted them."""
    kube = Watched()
    kube.cache.apply_event(JOBS, "ADDED", job(4, is_complete=False))
    kube.cache.apply_event(PODS, "ADDED", pod(8, "Succeeded"))
    assert await kube.phases() == ["Succeeded"]
    assert kube.reads == []
