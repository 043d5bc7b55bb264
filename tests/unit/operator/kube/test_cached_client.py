"""The client with the cache: which reads need a request, and what a write changes in the cache."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.cached_client import CachedKube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import FINE_TUNE_JOBS, JOBS, SERVICES, Object
from tests.unit.operator.fake_kube import FakeKube, Request

OURS = {"app.kubernetes.io/managed-by": "finetune-operator", "finetune.dev/owner-uid": "parent"}
COLLECTION = "/apis/batch/v1/namespaces/team-a/jobs"
BY_NAME = {"metadata.name": "a"}


def job(version: int | None = None, name: str = "a", labels: dict[str, str] = OURS) -> Object:
    metadata: Object = {"name": name, "namespace": "team-a", "labels": labels}
    if version is not None:
        metadata |= {"uid": f"uid-of-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata}


def status(version: int, wire: Object) -> Object:
    metadata = {"name": "router", "namespace": "team-a", "uid": "u", "resourceVersion": str(version)}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "status": wire}


class CachedFakeKube(CachedKube):
    """The real client over the fake API server."""

    _request = FakeKube._request  # type: ignore[assignment]

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        managed = {"app.kubernetes.io/managed-by": frozenset({"finetune-operator"})}
        super().__init__(None, Cache({FINE_TUNE_JOBS: {}, JOBS: managed}, "finetune.dev/owner-uid"))
        self.answers: dict[str, Any] = dict(answers or {})
        self.requests: list[Request] = []
        for resource in (FINE_TUNE_JOBS, JOBS):
            self.cache.begin_list(resource)
            self.cache.end_list(resource, "1")
            self.cache.set_connected(resource, True)

    @property
    def reads(self) -> list[str]:
        return [request.line for request in self.requests if request.method == "GET"]


def made(version: int = 5) -> CachedFakeKube:
    """A client with one cached Job."""
    kube = CachedFakeKube()
    kube.cache.apply_event(JOBS, "ADDED", job(version))
    return kube


async def test_cached_objects_are_read_without_a_request() -> None:
    kube = made()
    assert await kube.get(JOBS, "team-a", "a") == job(5)
    assert await kube.list(JOBS, "team-a", OURS) == [job(5)]
    assert await kube.list(JOBS, "team-a", fields=BY_NAME) == [job(5)]
    assert kube.requests == []


async def test_a_miss_is_requested_once_and_then_cached() -> None:
    kube = CachedFakeKube({f"GET {COLLECTION}/a": job(5)})
    assert await kube.get(JOBS, "team-a", "b") is None
    assert await kube.get(JOBS, "team-a", "a") == job(5)
    assert await kube.get(JOBS, "team-a", "a") == job(5)
    assert kube.reads == [f"GET {COLLECTION}/b", f"GET {COLLECTION}/a"]


async def test_live_reads_bypass_the_cache_and_update_it() -> None:
    kube = made()
    kube.answers |= {
        f"GET {COLLECTION}/a": job(7),
        f"GET {COLLECTION}": {"items": [], "metadata": {"resourceVersion": "8"}},
    }
    assert await kube.live.get(JOBS, "team-a", "a") == job(7)
    assert await kube.get(JOBS, "team-a", "a") == job(7)
    assert await kube.live.list(JOBS, "team-a", OURS) == []
    assert await kube.list(JOBS, "team-a", OURS) == []
    assert len(kube.requests) == 2


async def test_a_partial_list_removes_nothing_from_the_cache() -> None:
    kube = made()
    kube.answers[f"GET {COLLECTION}"] = {"items": [], "metadata": {"resourceVersion": "8"}}
    await kube.list(JOBS, "team-a", OURS, limit=1)
    await kube.list(JOBS, "team-a", {**OURS, "role": "preflight"}, fields={"status.phase": "x"})
    assert await kube.list(JOBS, "team-a", OURS) == [job(5)]


async def test_our_own_writes_are_read_at_once() -> None:
    kube = CachedFakeKube({f"POST {COLLECTION}": job(6)})
    await kube.create_once(job())
    assert await kube.list(JOBS, "team-a", OURS) == [job(6)]
    written = status(9, {"phase": "Training"})
    path = "/apis/finetune.dev/v1alpha1/namespaces/team-a/finetunejobs/router"
    kube.answers[f"PATCH {path}/status"] = written
    await kube.apply_status(status(8, {"phase": "Training"}))
    assert await kube.get(FINE_TUNE_JOBS, "team-a", "router") == written
    assert kube.reads == []


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ({"kind": "Status", "status": "Success", "details": {"uid": "uid-of-a"}}, []),
        ({**job(7), "metadata": {**job(7)["metadata"], "deletionTimestamp": "2026-11-26T12:00:00Z"}}, ["7"]),
    ],
    ids=["it is gone", "it waits for a finalizer"],
)
async def test_a_deletion_is_read_as_its_response_reports_it(answer: Object, left: list[str]) -> None:
    kube = made()
    kube.answers[f"DELETE {COLLECTION}/a"] = answer
    await kube.delete(JOBS, "team-a", "a", "uid-of-a")
    found = await kube.list(JOBS, "team-a", OURS)
    assert [one["metadata"]["resourceVersion"] for one in found] == left
    assert kube.reads == []


async def test_an_object_that_loses_its_last_finalizer_is_gone() -> None:
    """Otherwise its deletion would start again for an object that no longer exists."""
    kube = CachedFakeKube()
    held = status(9, {"phase": "Succeeded"})
    held["metadata"] |= {"deletionTimestamp": "2026-11-26T12:00:00Z", "deletionGracePeriodSeconds": 0}
    held["metadata"]["finalizers"] = ["finetune.dev/storage"]
    kube.cache.apply_event(FINE_TUNE_JOBS, "MODIFIED", held)
    released = {**held, "metadata": {name: value for name, value in held["metadata"].items() if name != "finalizers"}}
    path = "/apis/finetune.dev/v1alpha1/namespaces/team-a/finetunejobs/router"
    kube.answers[f"PATCH {path}"] = released
    await kube.remove_finalizer(held, "finetune.dev/storage")
    assert await kube.get(FINE_TUNE_JOBS, "team-a", "router") is None
    assert kube.reads == [f"GET {path}"]


ERRORS = [
    ApiError(409, "Conflict", "the object has been modified"),
    ApiError(500, "InternalError", "etcd"),
    ApiError(0, "ServerDisconnectedError", "no answer"),
    ApiError(404, "NotFound", "gone"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
@pytest.mark.parametrize("verb", ["create", "apply", "delete"])
async def test_after_a_failed_write_the_object_and_its_siblings_are_read_live_once(verb: str, error: ApiError) -> None:
    kube = made()
    line = {"create": f"POST {COLLECTION}", "apply": f"PATCH {COLLECTION}/a", "delete": f"DELETE {COLLECTION}/a"}[verb]
    siblings = {"items": [job(8)], "metadata": {"resourceVersion": "8"}}
    kube.answers |= {line: error, f"GET {COLLECTION}/a": job(8), f"GET {COLLECTION}": siblings}
    try:
        if verb == "delete":
            await kube.delete(JOBS, "team-a", "a", "uid-of-a")
        else:
            await (kube.create(JOBS, "team-a", job()) if verb == "create" else kube.apply(job()))
    except ApiError as raised:
        assert raised is error
    for _ in range(2):
        assert await kube.list(JOBS, "team-a", OURS) == [{**job(8)}]
        assert await kube.get(JOBS, "team-a", "a") == job(8)
    assert kube.reads == [f"GET {COLLECTION}", f"GET {COLLECTION}/a"]


@pytest.mark.parametrize("items", [[job(8)], []], ids=["it is there", "it is gone"])
async def test_a_list_by_name_settles_an_unknown_outcome_too(items: list[Object]) -> None:
    kube = made()
    kube.cache.mark_unknown(JOBS, "team-a", "a", "parent")
    kube.answers[f"GET {COLLECTION}"] = {"items": items, "metadata": {"resourceVersion": "8"}}
    assert await kube.list(JOBS, "team-a", fields=BY_NAME) == items
    assert await kube.list(JOBS, "team-a", fields=BY_NAME) == items
    assert len(kube.reads) == (1 if items else 2), "absence is never cached"
    assert await kube.list(JOBS, "team-a", OURS) == items, "the siblings have an unknown outcome of their own"
    assert len(kube.reads) == (2 if items else 3)


async def test_a_cancelled_write_has_an_unknown_outcome() -> None:
    kube = made()

    async def never(*_: Any, **__: Any) -> Object:
        await asyncio.sleep(3600)
        raise AssertionError

    kube._request = never  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await kube.apply(job())
    assert kube.cache.owned(JOBS, "team-a", OURS) is None


async def test_a_forgotten_finished_object_is_read_live() -> None:
    kube = CachedFakeKube()
    whole = status(9, {"phase": "Succeeded"})
    kube.cache.apply_event(FINE_TUNE_JOBS, "ADDED", whole)
    kube.forget_finished(FINE_TUNE_JOBS, whole)
    path = "/apis/finetune.dev/v1alpha1/namespaces/team-a/finetunejobs/router"
    kube.answers[f"GET {path}"] = whole
    assert await kube.get(FINE_TUNE_JOBS, "team-a", "router") == whole
    assert kube.reads == [f"GET {path}"]


async def test_live_reads_are_counted_by_their_cause() -> None:
    kube = made()
    empty = {"items": [], "metadata": {"resourceVersion": "8"}}
    kube.answers |= {f"GET {COLLECTION}": empty, "GET /api/v1/namespaces/team-a/services": empty}
    await kube.list(JOBS, "team-a", OURS)
    await kube.get(JOBS, "team-a", "b")
    await kube.live.list(JOBS, "team-a", OURS)
    kube.cache.mark_unknown(JOBS, "team-a", "a", "parent")
    await kube.list(JOBS, "team-a", OURS)
    kube.cache.set_connected(JOBS, False)
    kube.cache._stores[JOBS].last_heard = float("-inf")
    await kube.list(JOBS, "team-a", OURS)
    await kube.list(SERVICES, "team-a", OURS)
    assert kube.cache.counts.live_reads == {
        ("jobs", "missing"): 1,
        ("jobs", "asked"): 1,
        ("jobs", "unknown"): 1,
        ("jobs", "stale"): 1,
        ("services", "unwatched"): 1,
    }
