"""Events about an object that is being written: whose write they tell of is known once that is answered.

The API server often sends an event to the watch before it answers the write. Delivered at once, it would count as
somebody else's, and the object would be reconciled once more for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from finetune_operator.kube.resources import Resource

ObjectName = tuple[Resource, str, str]
"""Resource, namespace (empty: none) and name."""


@dataclass
class _Flight:
    writes: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)


class WritesInFlight:
    """The objects that are being written, and what waits to be delivered about them."""

    def __init__(self) -> None:
        self._flights: dict[ObjectName, _Flight] = {}

    @contextmanager
    def writing(self, name: ObjectName) -> Iterator[None]:
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

    def waits(self, name: ObjectName, deliver: Callable[[], None]) -> bool:
        """Whether the object is being written, and this is delivered afterwards, however the write ends."""
        flight = self._flights.get(name)
        if flight is not None:
            flight.waiting.append(deliver)
        return flight is not None
