"""The servers and the places at them: a request has one, or waits for one, first come, first served."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable

from finetune_gateway.errors import RefusedError
from finetune_gateway.policy import Limits, RetryBudget, Server, choose, may_retry

SUSPECT_SECONDS = 5.0
"""A server that refused a connection is asked last for so long: it ends, or starts."""


class Pool:
    """The places of one gateway."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._addresses: frozenset[str] = frozenset()
        self._in_flight: Counter[str] = Counter()
        self._suspects: dict[str, float] = {}
        self._waiting: deque[asyncio.Future[str]] = deque()
        self._budget = RetryBudget()

    @property
    def servers(self) -> int:
        return len(self._addresses)

    @property
    def in_flight(self) -> int:
        return self._in_flight.total()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def update(self, addresses: Iterable[str]) -> None:
        """These are the servers now; requests at others are completed there."""
        self._addresses = frozenset(addresses)
        self._hand_out()

    def suspect(self, address: str) -> None:
        """It has refused a connection."""
        self._suspects[address] = self._clock()

    async def acquire(self) -> str:
        """The server of a new request, which is to be released. Raises RefusedError (429, 503)."""
        self._budget = self._budget.after_request()
        address = None if self._waiting else self._free()
        if address is not None:
            return self._taken(address)
        if len(self._waiting) >= self._limits.queue:
            if not self._addresses:
                message = "No server is ready, and as many requests wait as may. Try again later."
                raise RefusedError(503, message, "no_server_ready")
            message = "The servers have no room, and as many requests wait as may. Try again later."
            raise RefusedError(429, message, "queue_full")
        place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                return await asyncio.shield(place)
        except (TimeoutError, asyncio.CancelledError) as ended:
            self._leave(place)
            if isinstance(ended, TimeoutError):
                raise self._waited_too_long() from None
            raise

    def acquire_at_once(self) -> str | None:
        """The server of a new request, if one has room; nobody waits for it."""
        self._budget = self._budget.after_request()
        address = self._free()
        return None if address is None else self._taken(address)

    def another(self, tried: Collection[str]) -> str | None:
        """One more server for a request that those answered nothing to; None: there is none, or too many ask again."""
        address = self._free(tried) if may_retry(tried, self._budget) else None
        if address is None:
            return None
        self._budget = self._budget.after_retry()
        return self._taken(address)

    def release(self, address: str) -> None:
        """The request's answer is complete, or it was given up."""
        self._in_flight[address] -= 1
        if not self._in_flight[address]:
            del self._in_flight[address]
        self._hand_out()

    def _taken(self, address: str) -> str:
        self._in_flight[address] += 1
        return address

    def _free(self, tried: Collection[str] = ()) -> str | None:
        now = self._clock()
        self._suspects = {one: since for one, since in self._suspects.items() if now - since < SUSPECT_SECONDS}
        servers = [Server(one, self._in_flight[one], one in self._suspects) for one in sorted(self._addresses)]
        return choose(servers, self._limits, tried)

    def _hand_out(self) -> None:
        while self._waiting and (address := self._free()) is not None:
            self._waiting.popleft().set_result(self._taken(address))

    def _leave(self, place: asyncio.Future[str]) -> None:
        if place.done():  # It was given its place while it gave up.
            self.release(place.result())
        else:
            self._waiting.remove(place)

    def _waited_too_long(self) -> RefusedError:
        seconds = f"{self._limits.queue_seconds:g} seconds"
        if not self._addresses:
            return RefusedError(503, f"No server was ready within {seconds}. Try again later.", "no_server_ready")
        return RefusedError(429, f"The servers had no room within {seconds}. Try again later.", "servers_busy")
