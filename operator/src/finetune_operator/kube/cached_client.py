"""The client that reads from the cache and records its writes there, see cache.py; and which of these are in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.client import Kube, Page, Target
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import RESOURCES, Object, Resource
from finetune_operator.kube.transport import REQUEST_TIMEOUT_SECONDS, ResponseObserver

BY_NAME = "metadata.name"
ASKED = "asked"
"""The cause of a live read that the cache was not asked for."""
_Objects = list[Object]
_ObjectName = tuple[Resource, str, str]
"""Resource, namespace (empty: none) and name."""


@dataclass
class _Flight:
    writes: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)


class WritesInFlight:
    """The objects that are being written, and the events about them, which wait: whose write they tell of is not known.

    The API server often sends an event to the watch before it answers the write. Delivered at once, it would count as
    another client's, and the object would be reconciled once more for nothing.
    """

    def __init__(self) -> None:
        self._flights: dict[_ObjectName, _Flight] = {}

    @contextmanager
    def writing(self, name: _ObjectName) -> Iterator[None]:
        """Inside, the object is being written. When its last write has ended, whatever waits is delivered, in order."""
        flight = self._flights.setdefault(name, _Flight())
        flight.writes += 1
        try:
            yield
        finally:
            flight.writes -= 1
            if not flight.writes:
                del self._flights[name]
                for deliver in flight.waiting:
                    deliver()

    def waits(self, name: _ObjectName, deliver: Callable[[], None]) -> bool:
        """Whether the object is being written, and this is delivered afterwards, however the write ends.

        `deliver` must not raise: others wait, too.
        """
        flight = self._flights.get(name)
        if flight is not None:
            flight.waiting.append(deliver)
        return flight is not None


class CachedKube(Kube):
    """Reads from the cache, asks the API server on a miss, and stores the responses in the cache."""

    def __init__(
        self,
        api: Any,
        cache: Cache,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        on_response: ResponseObserver | None = None,
        resources: Iterable[Resource] = RESOURCES,
    ) -> None:
        super().__init__(api, request_timeout_seconds, on_response, resources)
        self.cache = cache
        self._writes = WritesInFlight()

    @property
    def live(self) -> Reader:
        """Always asks the API server."""
        return _LiveReader(self)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None if it does not exist, which only the API server decides."""
        cached = self.cache.get(resource, namespace, name)
        if cached is not None:
            return cached
        cause = self.cache.why_missed(resource, (namespace or "", name))
        return await self.get_live(resource, namespace, name, cause)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        """The objects with these labels and fields; from the cache by owner, by name, and all classes."""
        if limit is None and fields is None:
            cached = self.cache.owned(resource, namespace, labels) if labels else None
            if not labels and namespace is None:
                cached = self.cache.all(resource)
            if cached is not None:
                return cached
        elif name := _only_name(labels, fields):
            one = self.cache.get(resource, namespace, name)
            if one is not None:
                return [one]
        only = (namespace or "", name) if (name := _only_name(labels, fields)) else None
        cause = self.cache.why_missed(resource, only or self.cache.owner_uid(labels))
        return await self.list_live(resource, namespace, labels, fields=fields, limit=limit, cause=cause)

    def forget_finished(self, resource: Resource, parent: Object) -> None:
        """Drop a finished object from the cache, all but its version: nothing remains to be done for it."""
        meta = parent["metadata"]
        self.cache.mark_finished(resource, meta.get("namespace"), meta["name"], meta.get("resourceVersion", ""))

    def waits_for_answer(self, resource: Resource, body: Object, deliver: Callable[[], None]) -> bool:
        """Whether this client is writing the object, and calls `deliver` afterwards, however the write ends."""
        meta = body["metadata"]
        return self._writes.waits((resource, meta.get("namespace", ""), meta["name"]), deliver)

    async def get_live(self, resource: Resource, namespace: str | None, name: str, cause: str = ASKED) -> Object | None:
        """The object as it is now. `cause`: why it is read live, for metrics."""
        self.cache.counts.live_reads[resource.plural, cause] += 1
        key = (namespace or "", name)
        outcome, before = self.cache.unknown_outcome(resource, key), self.cache.entry(resource, namespace, name)
        found = await self._get(resource, namespace, name)
        self.cache.record_get(resource, key, found, outcome, before)
        return found

    async def list_live(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        cause: str = ASKED,
    ) -> _Objects:
        """The objects as they are now."""
        self.cache.counts.live_reads[resource.plural, cause] += 1
        owner = self.cache.owner_uid(labels) if fields is None and limit is None else None
        key = (namespace or "", name) if (name := _only_name(labels, fields)) else None
        outcome = self.cache.unknown_outcome(resource, owner or key or "")
        before = self.cache.entry(resource, *key) if key else None
        page: Page = await self._list(resource, namespace, labels, fields=fields, limit=limit)
        if owner is not None:
            self.cache.record_list(resource, owner, labels or {}, page.items, page.version, outcome)
        elif key is not None:
            self.cache.record_get(resource, key, next(iter(page.items), None), outcome, before)
        else:
            for item in page.items:
                self.cache.record_read(resource, item)
        return page.items

    async def _write(self, method: str, target: Target, manager: str | None = None, **request: Any) -> Object:
        body = request["body"]
        replaced = body.get("metadata", {}).get("resourceVersion") if isinstance(body, dict) else None
        if replaced is None:
            return await self._write_and_record(method, target, manager, None, **request)
        with self._writes.writing((target.resource, target.namespace or "", target.name)):
            return await self._write_and_record(method, target, manager, replaced, **request)

    async def _write_and_record(
        self, method: str, target: Target, manager: str | None, replaced: str | None, **request: Any
    ) -> Object:
        """`replaced`: the version without which the API server refuses the write."""
        try:
            answer = await super()._write(method, target, manager, **request)
        except BaseException:
            # Rejected, failed, unanswered or cancelled: the write may have been applied all the same.
            self._mark_unknown(target, request["body"])
            raise
        uid = (answer.get("details") or {}).get("uid")
        if "uid" in answer.get("metadata", {}):
            self.cache.record_write(target.resource, answer, replaced)
        elif method == "DELETE" and uid:
            self.cache.record_deletion(target.resource, target.namespace, target.name, uid)
        else:
            self._mark_unknown(target, request["body"])
        return answer

    def _mark_unknown(self, target: Target, body: Object | _Objects) -> None:
        labels = body.get("metadata", {}).get("labels") if isinstance(body, dict) else None
        self.cache.mark_unknown(target.resource, target.namespace, target.name, self.cache.owner_uid(labels))


def _only_name(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> str | None:
    """The name, if the field selector selects one object by its name and nothing else."""
    return fields[BY_NAME] if fields is not None and fields.keys() == {BY_NAME} and not labels else None


@dataclass(frozen=True)
class _LiveReader:
    """The same client without its cache."""

    kube: CachedKube

    @property
    def live(self) -> Reader:
        return self

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return await self.kube.get_live(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        return await self.kube.list_live(resource, namespace, labels, fields=fields, limit=limit)
