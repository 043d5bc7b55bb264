"""Which client gives way where too many are connected. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Client:
    """Who has a connection, and since when it has been waiting there for the rest of a request."""

    address: str
    since: float


def gives_way(clients: Collection[Client]) -> Client:
    """Of the address with the most connections, the one that has waited longest: no client can keep others out."""
    ((busiest, _),) = Counter(one.address for one in clients).most_common(1)
    return min((one for one in clients if one.address == busiest), key=lambda one: one.since)
