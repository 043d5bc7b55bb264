"""How often somebody may ask."""

from __future__ import annotations

import time
from collections import OrderedDict

_MOST_ASKERS = 10_000


class Rates:
    """A token bucket for each asker: so many at once, and so many a second on the whole.

    Bounded: of more than 10,000 askers those that asked longest ago begin anew.
    """

    def __init__(self, a_second: float, at_once: int) -> None:
        self._a_second = a_second
        self._at_once = float(at_once)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, asker: str) -> bool:
        """Whether this one may ask now; it counts as asked."""
        now = time.monotonic()
        left, seen = self._left.get(asker, (self._at_once, now))
        left = min(self._at_once, left + (now - seen) * self._a_second)
        self._left[asker] = (left - 1 if left >= 1 else left, now)
        self._left.move_to_end(asker)
        if len(self._left) > _MOST_ASKERS:
            self._left.popitem(last=False)
        return left >= 1
