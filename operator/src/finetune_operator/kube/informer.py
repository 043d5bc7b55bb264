"""Keeps one resource in the cache: lists it, watches it, and lists it again when the watch can't continue.

A change is stored in the cache before the handler is called, so that a reconciliation sees at least the change that
triggered it. Kopf's `on.event` can't replace this: it reports neither the end of a list, without which objects that
were deleted unseen would stay in the cache, nor bookmarks, from which a quiet watch resumes without another list.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import structlog

from finetune_operator.kube.cache import Cache, EventType
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object, Resource
from finetune_operator.kube.selectors import Selector, label_selector

WATCH_SECONDS = 300.0
"""A watch is reopened after this long to twice this long, so that connections spread over the API servers."""
EMPTY_WATCH_SECONDS = 1.0
"""A watch that ends within this time without an event has failed."""
LIST_PAUSE_SECONDS = 1.0
"""The minimum pause between two lists, or as long as the last list took if that is longer."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0

ChangeHandler = Callable[[Mapping[str, Any], str | None, bool], None]
"""Called with the object, the event type (None: from the first list), and whether the operator wrote it.

It is not a coroutine, so that no cancellation can come between storing a change and delivering it.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Informer:
    """Keeps one resource of the cache up to date."""

    kube: Kube
    cache: Cache
    resource: Resource
    selector: Selector
    on_change: ChangeHandler
    list_seconds: float
    """The interval between lists that repair what the watch may have missed."""
    wait_for_capacity: Callable[[], Awaitable[None]]
    """Waits until the work queue can take another page of objects."""
    reads: Callable[[str], bool] = lambda _: True
    """Whether the objects of a namespace (empty: of none) are kept; the others are skipped."""
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the first list is complete."""
    late_errors: asyncio.Queue[Exception] = field(default_factory=asyncio.Queue)
    """Of events that waited for a write: bugs, which end the informer as any other bug in a handler does."""

    async def run(self) -> None:
        """List and watch until cancelled. Errors of the API server are logged, and retried with exponential backoff."""
        failures = 0
        self.cache.heard_from(self.resource)
        while True:
            began = time.monotonic()
            try:
                version = await self._list()
                listed, failures = time.monotonic(), 0
                async with asyncio.TaskGroup() as tasks:
                    beside = [tasks.create_task(self._relist()), tasks.create_task(self._fail_late())]
                    await self._follow(version)
                    for task in beside:
                        task.cancel()
                pause = max(0.0, max(LIST_PAUSE_SECONDS, listed - began) - (time.monotonic() - listed))
            except ApiError as error:
                pause = _backoff(failures)
                failures += 1
                log.warning("list", resource=self.resource.plural, error=str(error), retry_seconds=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _list(self) -> str:
        """List all objects into the cache; returns the list's resourceVersion."""
        is_first, version = not self.synced.is_set(), ""
        self.cache.begin_list(self.resource)
        async with aclosing(self.kube.pages(self.resource, self._selectors())) as pages:
            async for page in pages:
                if page.is_first:
                    self.cache.restart_list(self.resource)
                for item in page.items:
                    if not self._is_read(item):
                        continue
                    change = self.cache.add_listed(self.resource, item)
                    if change is not None:
                        self.on_change(change.body, None if is_first else change.type, False)
                version = page.version
                await self.wait_for_capacity()
        for deletion in self.cache.end_list(self.resource, version):
            self.on_change(deletion.body, deletion.type, False)
        self.synced.set()
        return version

    async def _relist(self) -> None:
        """List periodically beside the watch, to pick up events that it missed."""
        while True:
            await asyncio.sleep(self.list_seconds * random.uniform(1.0, 1.2))
            try:
                await self._list()
            except ApiError as error:
                log.warning("list", resource=self.resource.plural, error=str(error))

    async def _follow(self, version: str) -> None:
        """Watch from a resourceVersion on, and reopen the watch until it can't be resumed without a list."""
        failures = 0
        while True:
            seconds, began, before = WATCH_SECONDS * random.uniform(1, 2), time.monotonic(), version
            try:
                version = await self._watch(version, seconds)
            except _WatchEndedError as ended:
                if ended.error.status == 410:
                    self.cache.counts.expired[self.resource.plural] += 1
                    return
                version = ended.version
                failures = failures + 1 if version == before else 0
                log.warning("watch", resource=self.resource.plural, error=str(ended.error))
            else:
                if version == before and time.monotonic() - began < EMPTY_WATCH_SECONDS:
                    return
                failures = 0
            await asyncio.sleep(_backoff(failures) * random.uniform(0.8, 1.2))

    async def _watch(self, version: str, seconds: float) -> str:
        """Run one watch to its end; returns the last resourceVersion. Raises _WatchEndedError."""
        try:
            async with aclosing(self.kube.watch(self.resource, self._selectors(), version, seconds)) as lines:
                async for line in lines:
                    self.cache.heard_from(self.resource)
                    if line is None:
                        self.cache.set_connected(self.resource, True)
                    else:
                        version = self._event(line, version)
                        self.cache.reached(self.resource, version)
            self.cache.heard_from(self.resource)
        except ApiError as error:
            raise _WatchEndedError(error, version) from error
        finally:
            self.cache.set_connected(self.resource, False)
        return version

    def _event(self, line: Object, version: str) -> str:
        type, body = str(line.get("type", "")), line.get("object") or {}
        if type == "ERROR":
            message = str(body.get("message", ""))
            raise ApiError(int(body.get("code") or 0), str(body.get("reason", "")), message)
        if type in ("ADDED", "MODIFIED", "DELETED") and self._is_read(body):
            is_ours = self.cache.apply_event(self.resource, cast(EventType, type), body)
            if is_ours or not self.kube.waits_for_answer(self.resource, body, partial(self._deliver, type, body)):
                self.on_change(body, type, is_ours)
        return str(body.get("metadata", {}).get("resourceVersion") or version)

    def _deliver(self, type: str, body: Object) -> None:
        """Deliver an event that waited. It is applied once more, which only tells whether it is ours by now."""
        try:
            self.on_change(body, type, self.cache.apply_event(self.resource, cast(EventType, type), body))
        except Exception as error:  # Neither the writer's, nor a reason to keep back the other events that waited.
            self.late_errors.put_nowait(error)

    async def _fail_late(self) -> None:
        raise await self.late_errors.get()

    def _is_read(self, body: Object) -> bool:
        return self.reads(body["metadata"].get("namespace", ""))

    def _selectors(self) -> dict[str, str]:
        return {"labelSelector": label_selector(self.selector)} if self.selector else {}


def _backoff(failures: int) -> float:
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 30), LONGEST_PAUSE_SECONDS)


class _WatchEndedError(Exception):
    """A watch failed after it had reached a resourceVersion."""

    def __init__(self, error: ApiError, version: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.version = version
