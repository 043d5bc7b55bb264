"""An event that overtakes the answer to our own write is ours all the same; anybody else's is delivered as theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.cached_client import CachedKube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.informer import Informer
from finetune_operator.kube.resources import FINE_TUNE_JOBS, Object, Resource

Delivered = tuple[str | None, str, bool]
"""Type, version, and whether it is ours."""


def finetunejob(version: int, name: str = "a", **status: Any) -> Object:
    metadata = {"name": name, "namespace": "team-a", "uid": f"uid-of-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "status": status}


class SlowToAnswer(CachedKube):
    """An API server whose watch is told by the test, and which answers a write when the test says so."""

    def __init__(self) -> None:
        super().__init__(None, Cache({FINE_TUNE_JOBS: {}}, "finetune.dev/owner-uid"))
        self.lines: asyncio.Queue[Object | None] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.answers: list[asyncio.Future[Object]] = []
        self.delivered: list[Delivered] = []

    async def watch(
        self, resource: Resource, selectors: Mapping[str, str], version: str, seconds: float
    ) -> AsyncGenerator[Object | None]:
        while (line := await self.lines.get()) is not None:
            yield line

    async def _request(self, method: str, path: str, **request: Any) -> Object:
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        self.asked.set()
        return await answer

    async def told(self, type: str, body: Object) -> None:
        """The watch delivers an event, which the informer has read when this returns."""

        def on_change(body: Mapping[str, Any], type: str | None, is_ours: bool) -> None:
            self.delivered.append((type, body["metadata"]["resourceVersion"], is_ours))

        async def wait_for_capacity() -> None:
            raise AssertionError("it does not list")

        informer = Informer(self, self.cache, FINE_TUNE_JOBS, {}, on_change, 3600.0, wait_for_capacity)
        self.lines.put_nowait({"type": type, "object": body})
        self.lines.put_nowait(None)
        await informer._watch("1", 60.0)

    async def begun(self, body: Object) -> asyncio.Task[Object]:
        """A status write that waits for its answer."""
        self.asked.clear()
        write = asyncio.create_task(self.apply_status(body))
        await self.asked.wait()
        return write


async def answered(write: asyncio.Task[Object], kube: SlowToAnswer, answer: Object | ApiError) -> None:
    """The oldest write in flight is answered."""
    waiting = kube.answers.pop(0)
    if isinstance(answer, ApiError):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
    await asyncio.gather(write, return_exceptions=True)


async def test_an_event_that_is_faster_than_the_answer_to_our_write_is_ours() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5, phase="Training"))
    await kube.told("MODIFIED", finetunejob(8, phase="Training"))
    assert kube.delivered == [("ADDED", "5", False)], "whose it is, is not known yet"
    await answered(write, kube, finetunejob(8, phase="Training"))
    assert kube.delivered == [("ADDED", "5", False), ("MODIFIED", "8", True)]
    await kube.told("MODIFIED", finetunejob(9))
    assert kube.delivered[2:] == [("MODIFIED", "9", False)], "the next one is somebody else's, and waits for nothing"


async def test_somebody_elses_change_because_of_which_our_write_is_refused_is_delivered_as_theirs() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5, phase="Training"))
    await kube.told("MODIFIED", finetunejob(7))
    await answered(write, kube, ApiError(409, "Conflict", "it has changed"))
    assert kube.delivered[1:] == [("MODIFIED", "7", False)]


async def test_somebody_elses_change_after_ours_is_delivered_as_theirs_in_their_order() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5, phase="Training"))
    await kube.told("MODIFIED", finetunejob(8, phase="Training"))
    await kube.told("DELETED", finetunejob(9, phase="Training"))
    await answered(write, kube, finetunejob(8, phase="Training"))
    assert [(type, version) for type, version, _ in kube.delivered[1:]] == [("MODIFIED", "8"), ("DELETED", "9")]
    assert kube.delivered[-1] == ("DELETED", "9", False)
    assert kube.cache.entry(FINE_TUNE_JOBS, "team-a", "a") is None


async def test_a_write_that_changes_nothing_makes_nobodys_version_ours() -> None:
    """The API server answers it with the version that it was made upon."""
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5))
    await kube.told("MODIFIED", finetunejob(5))
    await answered(write, kube, finetunejob(5))
    assert kube.delivered == [("ADDED", "5", False), ("MODIFIED", "5", False)]


async def test_of_two_writes_in_flight_the_last_one_delivers_what_waits() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    first, second = await kube.begun(finetunejob(5, phase="Training")), await kube.begun(finetunejob(5, phase="Failed"))
    await kube.told("MODIFIED", finetunejob(8, phase="Training"))
    await answered(first, kube, finetunejob(8, phase="Training"))
    assert len(kube.delivered) == 1
    await answered(second, kube, ApiError(409, "Conflict", "it has changed"))
    assert kube.delivered[1:] == [("MODIFIED", "8", True)]


async def test_a_cancelled_write_keeps_nothing_back() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5, phase="Training"))
    await kube.told("MODIFIED", finetunejob(8, phase="Training"))
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    assert kube.delivered[1:] == [("MODIFIED", "8", False)], "its outcome is unknown"


async def test_events_of_other_objects_are_not_kept_waiting() -> None:
    kube = SlowToAnswer()
    await kube.told("ADDED", finetunejob(5))
    write = await kube.begun(finetunejob(5, phase="Training"))
    await kube.told("ADDED", finetunejob(6, name="b"))
    assert kube.delivered[1:] == [("ADDED", "6", False)]
    await answered(write, kube, finetunejob(8, phase="Training"))
