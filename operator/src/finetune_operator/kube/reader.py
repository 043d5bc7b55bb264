"""The read-only interface to the Kubernetes API for observing (controller-runtime's client.Reader)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from finetune_operator.kube.resources import Object, Resource


class Reader(Protocol):
    """Reads objects; each method raises ApiError if the API server rejects or fails the request.

    Objects may come from the cache (kube/cache.py) and are shared: callers must not modify them.
    """

    @property
    def live(self) -> Reader:
        """Reads the current state, for when cached objects contradict each other or must not be stale."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None if it does not exist."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        """The objects of a namespace (or the cluster) with these labels and fields: all, or at most `limit`."""


@dataclass(frozen=True)
class PartlyLive:
    """Reads these resources live, and all others as `reader` does."""

    reader: Reader
    resources: Collection[Resource]

    @property
    def live(self) -> Reader:
        return self.reader.live

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        return await self._reader_of(resource).get(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Object]:
        return await self._reader_of(resource).list(resource, namespace, labels, fields=fields, limit=limit)

    def _reader_of(self, resource: Resource) -> Reader:
        return self.reader.live if resource in self.resources else self.reader
