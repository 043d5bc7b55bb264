"""What the gateway decides: which server gets a request, and whether another one is tried. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

MOST_RETRIES = 2
RETRIED_SHARE = 0.1
"""Of all requests: where most fail, asking again only adds to what overloads the servers."""
RETRIES_AT_FIRST = 10.0
SERVICE_UNAVAILABLE = 503


@dataclass(frozen=True)
class Limits:
    """What a gateway lets through. `in_flight`: requests at a time at one server; `queue`: requests that wait."""

    in_flight: int
    queue: int
    queue_seconds: float


@dataclass(frozen=True)
class Server:
    """A server, and how many requests this gateway has there. `suspect`: it has just refused a connection."""

    address: str
    in_flight: int = 0
    suspect: bool = False


def choose(servers: Iterable[Server], limits: Limits, tried: Collection[str] = ()) -> str | None:
    """The address of the least busy server that has room and was not tried; None if there is none."""
    free = [one for one in servers if one.in_flight < limits.in_flight and one.address not in tried]
    best = min(free, key=lambda one: (one.suspect, one.in_flight), default=None)
    return None if best is None else best.address


def may_retry(tried: Collection[str], budget: RetryBudget) -> bool:
    """Whether a request that nothing was answered to may be sent to one more server."""
    return len(tried) <= MOST_RETRIES and budget.left >= 1


@dataclass(frozen=True)
class RetryBudget:
    """How many requests may be sent again: a tenth of those that came, and a few at first."""

    left: float = RETRIES_AT_FIRST

    def after_request(self) -> RetryBudget:
        return RetryBudget(min(self.left + RETRIED_SHARE, RETRIES_AT_FIRST))

    def after_retry(self) -> RetryBudget:
        return RetryBudget(self.left - 1)
