"""A watch of ours: what it asks for, what it goes on from, when it lists again, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
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
    """The watch stays open and says nothing."""


class Watched(FakeKube):
    """Answers lists from a table; each watch says what is next, and the last one stays open."""

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
    """An informer that runs, and what it told."""

    def __init__(self, kube: Watched, list_seconds: float = 3600.0) -> None:
        self.kube = kube
        self.cache = Cache({JOBS: {"managed": frozenset({"us"})}}, "owner")
        self.told: list[tuple[str | None, str]] = []
        self.ours: list[str] = []
        self.pages = 0

        def tell(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
            self.told.append((type, body["metadata"]["name"]))
            self.ours += [body["metadata"]["name"]] if is_ours else []

        async def room() -> None:
            self.pages += 1

        self.informer = Informer(kube, self.cache, JOBS, {"managed": frozenset({"us"})}, tell, list_seconds, room)

    async def until(self, watches: int) -> None:
        """Run until so many watches were asked for, and the last one has nothing more to say."""
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


async def test_it_lists_page_by_page_and_follows_from_the_list_s_version() -> None:
    kube = Watched(
        [page(job("a", 3), version=7, more="token"), page(job("b", 4), version=7)],
        [event("ADDED", job("c", 8)), event("MODIFIED", job("a", 9)), event("DELETED", job("b", 10)), Stays],
    )
    run = Run(kube)
    await run.until(watches=1)
    assert run.told == [(None, "a"), (None, "b"), ("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert (kube.since, run.names, run.pages) == (["7"], ["a", "c"], 2)
    assert kube.requests[0].query["labelSelector"] == "managed=us"
    assert "resourceVersion" not in kube.requests[0].query, "a list of what is so now, not of what a cache holds"
    assert run.informer.listed.is_set()


async def test_who_is_told_reads_at_least_what_it_is_told_of() -> None:
    kube = Watched([page(version=7)], [event("ADDED", job("a", 8)), Stays])
    run = Run(kube)
    seen: list[object] = []

    def tell(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
        seen.append(run.cache.get(JOBS, "team-a", "a"))

    run.informer = Informer(kube, run.cache, JOBS, run.informer.selector, tell, 3600.0, run.informer.room)
    await run.until(watches=1)
    assert seen == [job("a", 8)]


async def test_it_tells_which_changes_are_our_own() -> None:
    kube = Watched([page(job("a", 3), job("b", 3), version=9)], [event("MODIFIED", job(name, 9)) for name in "ab"])
    run = Run(kube)
    run.cache.wrote(JOBS, job("b", 9))
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
async def test_a_watch_goes_on_where_it_was(watch: list[Any], version: str) -> None:
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
    ids=["it says 410", "it says 410 later", "it is refused with 410", "it ends at once and says nothing"],
)
async def test_a_watch_that_expired_is_listed_again_and_deletions_meanwhile_are_reported(
    watch: list[Any],
) -> None:
    kube = Watched([page(job("a", 3), job("b", 4), version=7), page(job("b", 4), job("c", 12), version=20)], watch)
    run = Run(kube)
    await run.until(watches=2)
    assert kube.since == ["7", "20"]
    assert run.told == [(None, "a"), (None, "b"), ("ADDED", "c"), ("DELETED", "a")]
    assert run.names == ["b", "c"]


async def test_what_a_watch_lost_comes_with_the_next_list_which_does_not_interrupt_it() -> None:
    kube = Watched([page(job("a", 3), version=7), page(job("a", 9), version=20)], [bookmark(15), Stays])
    run = Run(kube, list_seconds=0.02)
    task = asyncio.create_task(run.informer.run())
    async with asyncio.timeout(10):
        while len(run.told) < 2:  # noqa: ASYNC110 - a script tells nobody
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.told == [(None, "a"), ("MODIFIED", "a")]
    assert kube.since == ["7"]


@pytest.mark.parametrize(
    ("watch", "silent"), [([ApiError(503, "ServiceUnavailable", "")], 100.0), ([bookmark(9)], 0.0)]
)
async def test_a_watch_that_is_refused_is_no_word_of_the_api_server(
    watch: list[Any], silent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or memory would be believed, and the process called alive, for as long as it is tried."""
    monkeypatch.setattr(informers, "FIRST_PAUSE_SECONDS", 3600.0)
    kube = Watched([page(job("a", 3), version=7)], watch)
    run = Run(kube)
    run.cache._clock = lambda: 100.0 * len(kube.since)
    await run.until(watches=1)
    assert run.cache.silent_seconds(JOBS) == silent


async def test_an_api_server_that_went_back_in_time_ends_the_operator() -> None:
    kube = Watched([page(job("a", 3), version=70), page(job("a", 3), version=7)], [GONE])
    with pytest.raises(RestoredError):
        await Run(kube).informer.run()


async def test_what_is_in_doubt_while_a_list_is_asked_for_stays_in_doubt() -> None:
    kube = Watched([page(version=7)])
    run = Run(kube)
    answer = kube._request

    async def slow(method: str, path: str, **given: Any) -> Object:
        found = await answer(method, path, **given)
        run.cache.doubt(JOBS, "team-a", "a", "parent")
        return found

    kube._request = slow  # type: ignore[method-assign]
    await run.until(watches=1)
    assert run.names is None


async def test_a_list_whose_pages_expire_begins_again() -> None:
    first, whole = page(job("a", 3), job("b", 3), version=7, more="token"), page(job("b", 3), version=9)
    kube = Watched([first, GONE, whole])
    run = Run(kube)
    await run.until(watches=1)
    assert (kube.since, run.names) == (["9"], ["b"])
    assert run.told == [(None, "a"), (None, "b"), ("DELETED", "a")]


async def test_a_list_that_is_refused_is_tried_again() -> None:
    kube = Watched([ApiError(500, "InternalError", ""), ApiError(403, "Forbidden", ""), page(job("a", 3), version=7)])
    run = Run(kube)
    await run.until(watches=1)
    assert run.names == ["a"]


async def test_while_no_watch_is_open_memory_is_believed_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.kube.cache.SILENT_SECONDS", 0.0)
    run = Run(Watched([page(job("a", 3), version=7)]))
    task = asyncio.create_task(run.informer.run())
    while not run.kube.since:  # noqa: ASYNC110 - a script tells nobody
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert run.names == ["a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert run.names is None
