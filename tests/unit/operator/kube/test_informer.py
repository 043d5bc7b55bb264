"""The informer: its requests, where a watch resumes, when it lists again, and what it delivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.kube import informer as informers
from finetune_operator.kube.cache import Cache, RestoredError
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.informer import Informer
from finetune_operator.kube.resources import JOBS, Object, Resource
from tests.unit.operator.fake_kube import FakeKube

LIST = "GET /apis/batch/v1/jobs"
OURS = {"managed": "us", "owner": "parent"}
GONE = ApiError(410, "Expired", "too old resource version")


def job(name: str, version: int) -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": OURS,
        }
    }


def page(*items: Object, version: int, more: str = "") -> Object:
    return {"items": list(items), "metadata": {"resourceVersion": str(version), "continue": more}}


def event(type: str, item: Object) -> Object:
    return {"type": type, "object": item}


def bookmark(version: int) -> Object:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Stays:
    """The watch stays open and silent."""


class Watched(FakeKube):
    """Answers lists from a table; each watch follows the next script, and the last one stays open."""

    def __init__(self, lists: list[Object], *watches: list[Object | ApiError | type[Stays]]) -> None:
        super().__init__({LIST: [*lists]})
        self.watches = list(watches)
        self.since: list[str] = []

    async def watch(
        self, resource: Resource, selectors: Mapping[str, str], version: str, seconds: float
    ) -> AsyncGenerator[Object | None]:
        self.since.append(version)
        script = self.watches.pop(0) if self.watches else [Stays]
        if not script or not isinstance(script[0], ApiError):
            yield None
        for line in script:
            if isinstance(line, ApiError):
                raise line
            if isinstance(line, type):
                await asyncio.sleep(seconds)
            else:
                yield line

    @property
    def lists(self) -> int:
        return sum(request.line == LIST for request in self.requests)


class Run:
    """A running informer, and the changes that it delivered."""

    def __init__(self, kube: Watched, list_seconds: float = 3600.0) -> None:
        self.kube = kube
        self.cache = Cache({JOBS: {"managed": frozenset({"us"})}}, "owner")
        self.delivered: list[tuple[str | None, str]] = []
        self.ours: list[str] = []
        self.pages = 0

        def on_change(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
            self.delivered.append((type, body["metadata"]["name"]))
            self.ours += [body["metadata"]["name"]] if is_ours else []

        async def wait_for_capacity() -> None:
            self.pages += 1

        selector = {"managed": frozenset({"us"})}
        self.informer = Informer(kube, self.cache, JOBS, selector, on_change, list_seconds, wait_for_capacity)

    async def until(self, watches: int) -> None:
        """Run until this many watches were opened and the last script has been played."""
        task = asyncio.create_task(self.informer.run())
        async with asyncio.timeout(10):
            while len(self.kube.since) < watches:  # noqa: ASYNC110 - a script tells nobody
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def names(self) -> list[str] | None:
        found = self.cache.owned(JOBS, "team-a", OURS)
        return None if found is None else [one["metadata"]["name"] for one in found]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informers, "LIST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 0.0)


async def test_an_informer_lists_in_pages_and_watches_from_the_version_of_the_list() -> None:
    kube = Watched(
        [page(job("a", 3), version=7, more="token"), page(job("b", 4), version=7)],
        [event("ADDED", job("c", 8)), event("MODIFIED", job("a", 9)), event("DELETED", job("b", 10)), Stays],
    )
    run = Run(kube)
    await run.until(watches=1)
    assert run.delivered == [(None, "a"), (None, "b"), ("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert (kube.since, run.names, run.pages) == (["7"], ["a", "c"], 2)
    assert kube.requests[0].query["labelSelector"] == "managed=us"
    assert "resourceVersion" not in kube.requests[0].query, "a list of the current state, not of the API server's cache"
    assert run.informer.synced.is_set()


async def test_objects_of_namespaces_that_are_not_read_are_skipped_and_their_versions_are_not() -> None:
    def elsewhere(body: Object) -> Object:
        return {**body, "metadata": {**body["metadata"], "namespace": "team-b"}}

    kube = Watched(
        [page(job("a", 3), elsewhere(job("b", 4)), version=7)],
        [event("ADDED", job("c", 8)), event("ADDED", elsewhere(job("d", 9)))],
        [event("DELETED", elsewhere(job("d", 10))), Stays],
    )
    run = Run(kube)
    run.informer = replace(run.informer, reads=lambda namespace: namespace == "team-a")
    await run.until(watches=2)
    assert run.delivered == [(None, "a"), ("ADDED", "c")]
    assert (kube.since, run.names) == (["7", "9"], ["a", "c"])
    assert run.cache.owned(JOBS, "team-b", OURS) == []


async def test_a_handler_finds_its_change_in_the_cache() -> None:
    kube = Watched([page(version=7)], [event("ADDED", job("a", 8)), Stays])
    run = Run(kube)
    seen: list[object] = []

    def on_change(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        seen.append(run.cache.get(JOBS, "team-a", "a"))

    run.informer = replace(run.informer, on_change=on_change)
    await run.until(watches=1)
    assert seen == [job("a", 8)]


async def test_handlers_are_told_which_changes_are_our_own_writes() -> None:
    kube = Watched([page(job("a", 3), job("b", 3), version=9)], [event("MODIFIED", job(name, 9)) for name in "ab"])
    run = Run(kube)
    run.cache.record_write(JOBS, job("b", 9))
    await run.until(watches=1)
    assert run.ours == ["b"]


@pytest.mark.parametrize(
    ("watch", "version"),
    [
        ([event("ADDED", job("a", 8))], "8"),
        ([event("ADDED", job("a", 8)), ApiError(0, "ClientPayloadError", "")], "8"),
        ([bookmark(99)], "99"),
        ([bookmark(99), event("ERROR", {"code": 500, "message": "etcd"})], "99"),
        ([ApiError(503, "ServiceUnavailable", "")], "7"),
    ],
    ids=["it ends", "it breaks off", "after a bookmark", "an error in it", "it is refused"],
)
async def test_a_watch_resumes_from_its_last_version(watch: list[Any], version: str) -> None:
    kube = Watched([page(version=7)], watch)
    await Run(kube).until(watches=2)
    assert (kube.since, kube.lists) == (["7", version], 1)


@pytest.mark.parametrize(
    "watch",
    [
        [event("ERROR", {"code": 410, "reason": "Expired"})],
        [bookmark(9), event("ERROR", {"code": 410, "reason": "Expired"})],
        [GONE],
        [],
    ],
    ids=["it reports 410", "it reports 410 later", "it is rejected with 410", "it ends at once without an event"],
)
async def test_an_expired_watch_lists_again_and_reports_deletions(
    watch: list[Any],
) -> None:
    kube = Watched([page(job("a", 3), job("b", 4), version=7), page(job("b", 4), job("c", 12), version=20)], watch)
    run = Run(kube)
    await run.until(watches=2)
    assert kube.since == ["7", "20"]
    assert run.delivered == [(None, "a"), (None, "b"), ("ADDED", "c"), ("DELETED", "a")]
    assert run.names == ["b", "c"]


async def test_the_periodic_list_delivers_missed_changes_without_interrupting_the_watch() -> None:
    kube = Watched([page(job("a", 3), version=7), page(job("a", 9), version=20)], [bookmark(15), Stays])
    run = Run(kube, list_seconds=0.02)
    task = asyncio.create_task(run.informer.run())
    async with asyncio.timeout(10):
        while len(run.delivered) < 2:  # noqa: ASYNC110 - a script tells nobody
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.delivered == [(None, "a"), ("MODIFIED", "a")]
    assert kube.since == ["7"]


@pytest.mark.parametrize(
    ("watch", "silent"), [([ApiError(503, "ServiceUnavailable", "")], 100.0), ([bookmark(9)], 0.0)]
)
async def test_a_rejected_watch_is_no_sign_of_life(
    watch: list[Any], silent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the cache would count as fresh, and the process as alive, for as long as it retries."""
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 3600.0)
    kube = Watched([page(job("a", 3), version=7)], watch)
    run = Run(kube)
    run.cache._clock = lambda: 100.0 * len(kube.since)
    await run.until(watches=1)
    assert run.cache.silent_seconds(JOBS) == silent


async def test_a_restored_etcd_ends_the_operator() -> None:
    kube = Watched([page(job("a", 3), version=70), page(job("a", 3), version=7)], [GONE])
    with pytest.raises(RestoredError):
        await Run(kube).informer.run()


async def test_a_write_during_a_list_keeps_its_unknown_outcome() -> None:
    kube = Watched([page(version=7)])
    run = Run(kube)
    answer = kube._request

    async def slow(method: str, path: str, **given: Any) -> Object:
        found = await answer(method, path, **given)
        run.cache.mark_unknown(JOBS, "team-a", "a", "parent")
        return found

    kube._request = slow  # type: ignore[method-assign]
    await run.until(watches=1)
    assert run.names is None


async def test_a_list_whose_pages_expire_starts_over() -> None:
    first, whole = page(job("a", 3), job("b", 3), version=7, more="token"), page(job("b", 3), version=9)
    kube = Watched([first, GONE, whole])
    run = Run(kube)
    await run.until(watches=1)
    assert (kube.since, run.names) == (["9"], ["b"])
    assert run.delivered == [(None, "a"), (None, "b"), ("DELETED", "a")]


@pytest.mark.parametrize("line", [event("ADDED", job("b", 12)), bookmark(12)], ids=["an event", "a bookmark"])
async def test_the_cache_is_told_how_far_the_watch_has_come(line: Object) -> None:
    run = Run(Watched([page(version=7)], [event("ADDED", job("a", 8)), line, Stays]))

    def writes(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        if body["metadata"]["name"] == "a":
            run.cache.record_write(JOBS, job("a", 11))

    run.informer = replace(run.informer, on_change=writes)
    await run.until(watches=1)
    assert run.cache.get(JOBS, "team-a", "a") == job("a", 11)
    assert [owed for _, owed in run.cache.ages().values()] == [0.0]


async def test_410s_and_lists_are_counted() -> None:
    run = Run(Watched([page(version=7), page(version=20)], [GONE]))
    await run.until(watches=2)
    assert (run.cache.counts.lists, run.cache.counts.expired) == ({"jobs": 2}, {"jobs": 1})


async def test_a_bug_in_the_delivery_of_an_event_that_waited_for_a_write_ends_the_informer() -> None:
    """It is not the fault of whoever writes, and the other events that waited are delivered."""
    run = Run(Watched([page(version=9)], [Stays]))

    def fails(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        if type == "ADDED":
            raise LookupError(body["metadata"]["name"])

    informer = replace(run.informer, on_change=fails)
    informer._deliver("ADDED", job("a", 8))
    informer._deliver("ADDED", job("b", 9))
    with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="a")):
        await asyncio.wait_for(informer.run(), 10)


async def test_a_rejected_list_is_retried() -> None:
    kube = Watched([ApiError(500, "InternalError", ""), ApiError(403, "Forbidden", ""), page(job("a", 3), version=7)])
    run = Run(kube)
    await run.until(watches=1)
    assert run.names == ["a"]


async def test_the_cache_is_stale_soon_after_the_watch_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.kube.cache.DISCONNECTED_SECONDS", 0.0)
    run = Run(Watched([page(job("a", 3), version=7)]))
    task = asyncio.create_task(run.informer.run())
    while not run.kube.since:  # noqa: ASYNC110 - a script tells nobody
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert run.names == ["a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.names is None
