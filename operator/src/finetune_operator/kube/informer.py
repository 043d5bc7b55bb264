"""One watch: lists a resource, follows its changes, lists it again when they can't be followed.

Every change goes into the cache first and is told then, so whoever is woken reads at least what woke it. That Kopf's
`on.event` can't do: it tells neither when a list is complete, so that what was deleted unseen stays known for ever, nor
bookmarks, by which a quiet watch goes on where it was instead of being listed again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

import structlog

from finetune_operator.kube.cache import Cache, Change
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object, Resource
from finetune_operator.kube.selectors import Selector, label_selector

WATCH_SECONDS = 300.0
"""A watch is begun anew after this long, or up to twice as long, so that the API server can share out its load."""
SHORT_SECONDS = 1.0
"""A watch that ends within this time and has said nothing is none."""
LIST_PAUSE_SECONDS = 1.0
"""The least time between two lists; it is as long as the list took, if that is longer."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0

Tell = Callable[[Mapping[str, Any], str | None, bool], None]
"""Is told of each change: the object; what happened (None: the first list had it); whether it was our own write.

It can't wait, so that nothing (the end of a watch, a stop) comes between what is known and what is told.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Informer:
    """Keeps one resource of the cache up to date."""

    kube: Kube
    cache: Cache
    resource: Resource
    selector: Selector
    tell: Tell
    list_seconds: float
    """How often it is listed again, whatever the watch says."""
    room: Callable[[], Awaitable[None]]
    """Waits until there is room for another page of objects."""
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    """All of its objects are known."""

    async def run(self) -> None:
        """List and watch for ever. What the API server refuses is logged and tried again, more and more rarely."""
        failures = 0
        self.cache.hears(self.resource)
        while True:
            began = time.monotonic()
            try:
                version = await self._list()
                listed, failures = time.monotonic(), 0
                async with asyncio.TaskGroup() as tasks:
                    checks = tasks.create_task(self._check())
                    await self._follow(version)
                    checks.cancel()
                pause = max(0.0, max(LIST_PAUSE_SECONDS, listed - began) - (time.monotonic() - listed))
            except ApiError as error:
                pause = _backoff(failures)
                failures += 1
                log.warning("list", resource=self.resource.plural, error=str(error), retry_seconds=round(pause, 1))
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _list(self) -> str:
        """Read all objects; returns the version that they are of."""
        is_first, version = not self.listed.is_set(), ""
        self.cache.begin_list(self.resource)
        async with aclosing(self.kube.pages(self.resource, self._selectors())) as pages:
            async for page in pages:
                if page.begins:
                    self.cache.begin_pages(self.resource)
                for item in page.items:
                    told = self.cache.listed(self.resource, item)
                    if told is not None:
                        self.tell(told.body, None if is_first else told.change, False)
                version = page.version
                await self.room()
        for gone in self.cache.end_list(self.resource, version):
            self.tell(gone.body, gone.change, False)
        self.listed.set()
        return version

    async def _check(self) -> None:
        """List again now and then, beside the watch: what the watch lost is lost no longer."""
        while True:
            await asyncio.sleep(self.list_seconds * random.uniform(1.0, 1.2))
            try:
                await self._list()
            except ApiError as error:
                log.warning("list", resource=self.resource.plural, error=str(error))

    async def _follow(self, version: str) -> None:
        """Watch from a version on, until only a list helps."""
        failures = 0
        while True:
            seconds, began, before = WATCH_SECONDS * random.uniform(1, 2), time.monotonic(), version
            try:
                version = await self._watch(version, seconds)
            except _Ended as ended:
                if ended.error.status == 410:
                    return
                version = ended.version
                failures = failures + 1 if version == before else 0
                log.warning("watch", resource=self.resource.plural, error=str(ended.error))
            else:
                if version == before and time.monotonic() - began < SHORT_SECONDS:
                    return
                failures = 0
            await asyncio.sleep(_backoff(failures) * random.uniform(0.8, 1.2))

    async def _watch(self, version: str, seconds: float) -> str:
        """Follow one watch to its end; returns the version that it has come to. Raises _Ended."""
        try:
            async with aclosing(self.kube.watch(self.resource, self._selectors(), version, seconds)) as lines:
                async for line in lines:
                    self.cache.hears(self.resource)
                    if line is None:
                        self.cache.connected(self.resource, True)
                    else:
                        version = self._event(line, version)
            self.cache.hears(self.resource)
        except ApiError as error:
            raise _Ended(error, version) from error
        finally:
            self.cache.connected(self.resource, False)
        return version

    def _event(self, line: Object, version: str) -> str:
        type, body = str(line.get("type", "")), line.get("object") or {}
        if type == "ERROR":
            message = str(body.get("message", ""))
            raise ApiError(int(body.get("code") or 0), str(body.get("reason", "")), message)
        if type in ("ADDED", "MODIFIED", "DELETED"):
            is_ours = self.cache.event(self.resource, cast(Change, type), body)
            self.tell(body, type, is_ours)
        return str(body.get("metadata", {}).get("resourceVersion") or version)

    def _selectors(self) -> dict[str, str]:
        return {"labelSelector": label_selector(self.selector)} if self.selector else {}


def _backoff(failures: int) -> float:
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 30), LONGEST_PAUSE_SECONDS)


class _Ended(Exception):
    """A watch broke off, having come to a version."""

    def __init__(self, error: ApiError, version: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.version = version
