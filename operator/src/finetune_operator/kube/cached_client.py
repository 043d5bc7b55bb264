"""The client whose reads are answered from memory, and whose writes are remembered. See cache.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.kube.cache import Cache
from finetune_operator.kube.client import About, Kube, Page
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import RESOURCES, Object, Resource
from finetune_operator.kube.transport import REQUEST_TIMEOUT_SECONDS, Answered

BY_NAME = "metadata.name"
_Objects = list[Object]


class CachedKube(Kube):
    """Reads what the cache answers; asks the API server for the rest, and lets the cache know."""

    def __init__(
        self,
        api: Any,
        cache: Cache,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
        answered: Answered | None = None,
        resources: Iterable[Resource] = RESOURCES,
    ) -> None:
        super().__init__(api, request_timeout_seconds, answered, resources)
        self.cache = cache

    @property
    def live(self) -> Reader:
        """Asks the API server."""
        return _Live(self)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None when there is none, which the API server said just now."""
        known = self.cache.get(resource, namespace, name)
        return known if known is not None else await self.get_live(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> list[Object]:
        """The objects with these labels and fields; from memory those of an owner, of a name, and all classes."""
        if most is None and fields is None:
            known = self.cache.owned(resource, namespace, labels) if labels else None
            if not labels and namespace is None:
                known = self.cache.all(resource)
            if known is not None:
                return known
        elif name := _only_name(labels, fields):
            one = self.cache.get(resource, namespace, name)
            if one is not None:
                return [one]
        return await self.list_live(resource, namespace, labels, fields=fields, most=most)

    def settled(self, resource: Resource, parent: Object) -> None:
        """Nothing is to be done about a finished object as it is: of it only the version is kept."""
        meta = parent["metadata"]
        self.cache.finished(resource, meta.get("namespace"), meta["name"], meta.get("resourceVersion", ""))

    async def get_live(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object as it is now."""
        key = (namespace or "", name)
        doubt, before = self.cache.doubt_about(resource, key), self.cache.entry(resource, namespace, name)
        found = await self._get(resource, namespace, name)
        self.cache.found(resource, key, found, doubt, before)
        return found

    async def list_live(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> _Objects:
        """The objects as they are now."""
        owner = self.cache.owner(labels) if fields is None and most is None else None
        key = (namespace or "", name) if (name := _only_name(labels, fields)) else None
        doubt = self.cache.doubt_about(resource, owner or key or "")
        before = self.cache.entry(resource, *key) if key else None
        page: Page = await self._list(resource, namespace, labels, fields=fields, most=most)
        if owner is not None:
            self.cache.found_owned(resource, owner, labels or {}, page.items, page.version, doubt)
        elif key is not None:
            self.cache.found(resource, key, next(iter(page.items), None), doubt, before)
        else:
            for item in page.items:
                self.cache.read(resource, item)
        return page.items

    async def _write(self, method: str, about: About, manager: str | None = None, **request: Any) -> Object:
        try:
            answer = await super()._write(method, about, manager, **request)
        except BaseException:
            # Refused, answered by an error, not answered, or not waited for: it may have been done all the same.
            self._doubt(about, request["body"])
            raise
        uid = (answer.get("details") or {}).get("uid")
        if "uid" in answer.get("metadata", {}):
            self.cache.wrote(about.resource, answer)
        elif method == "DELETE" and uid:
            self.cache.deleted(about.resource, about.namespace, about.name, uid)
        else:
            self._doubt(about, request["body"])
        return answer

    def _doubt(self, about: About, body: Object | _Objects) -> None:
        labels = body.get("metadata", {}).get("labels") if isinstance(body, dict) else None
        self.cache.doubt(about.resource, about.namespace, about.name, self.cache.owner(labels))


def _only_name(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> str | None:
    """The name, where one object is asked for by it and nothing else."""
    return fields[BY_NAME] if fields is not None and fields.keys() == {BY_NAME} and not labels else None


@dataclass(frozen=True)
class _Live:
    """The same client, without its memory."""

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
        most: int | None = None,
    ) -> list[Object]:
        return await self.kube.list_live(resource, namespace, labels, fields=fields, most=most)
