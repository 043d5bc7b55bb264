"""What observing needs of the Kubernetes API: to read, and nothing else (controller-runtime's client.Reader)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from finetune_operator.kube.resources import Object, Resource


class Reader(Protocol):
    """Reads objects; each method raises ApiError when the API server refuses or fails.

    What is read may be remembered (kube/cache.py), and is shared: nobody may change it.
    """

    @property
    def live(self) -> Reader:
        """Reads what is so now, where what is remembered does not fit together or must not be old."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object; None when there is none."""

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        most: int | None = None,
    ) -> list[Object]:
        """The objects of a namespace (or of the cluster) with these labels and fields: all, or `most`."""
