"""Rate limits by client."""

from __future__ import annotations

import time
from collections import OrderedDict

_MOST_CLIENTS = 10_000


class RateLimiter:
    """A token bucket for each client: a burst, and a rate per second.

    Bounded: of more than 10,000 clients the least recent ones are forgotten.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Whether this client may send a request now; it counts as sent."""
        now = time.monotonic()
        left, seen = self._left.get(client, (self._burst, now))
        left = min(self._burst, left + (now - seen) * self._per_second)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        self._left.move_to_end(client)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1
