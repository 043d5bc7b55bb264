"""One Pod's shard of the outputs that several Pods generate together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One Pod's shard of the work."""

    index: int = 0
    nodes: int = 1

    def of(self, items: Iterable[T]) -> list[T]:
        """The items that are dealt to this Pod."""
        return [item for at, item in enumerate(items) if at % self.nodes == self.index]

    def first_number(self, after: int) -> int:
        """The first number after this one that is no other Pod's; further ones follow in steps of `nodes`."""
        return after + 1 + (self.index - after - 1) % self.nodes


WHOLE = Shard()
"""All of the work: that of a Pod that is alone."""
