"""The connections of the server. uvicorn has no limit of their number, nor of the time that a request's head takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Any, Protocol, TypeVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For a request's head, and for what of a body comes after its response."""
MOST_CONNECTIONS = 512
"""Less than the open files that a process may have, which on some nodes are 1024."""


class Connection(Protocol):
    """What decides which connection makes room."""

    since: float
    """When it began to wait for its next request."""

    @property
    def address(self) -> str: ...

    @property
    def owes_a_request(self) -> bool:
        """Whether its client has not sent a whole request."""


_Connection = TypeVar("_Connection", bound=Connection)


def one_too_many(newcomer: _Connection, others: Collection[_Connection]) -> _Connection:
    """The connection to cut, so that none keeps others out: of the client with the most, the one that waited longest.

    A request that is being answered is cut only for a client that has fewer of them.
    """
    owing = [other for other in others if other.owes_a_request]
    held = Counter(other.address for other in owing or others)
    busiest, count = held.most_common(1)[0]
    if not owing and count <= held[newcomer.address] + 1:
        return newcomer
    return min((other for other in owing or others if other.address == busiest), key=lambda other: other.since)


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with a limit of connections, and of the time for what a client has yet to send."""

    since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def owes_a_request(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.since = self.loop.time()
        self._set_deadline()
        others: list[Any] = [other for other in self.connections if not other.transport.is_closing()]
        others.remove(self)
        if len(others) >= MOST_CONNECTIONS:
            one_too_many(self, others).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._set_deadline()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        super().connection_lost(exc)

    def _set_deadline(self) -> None:
        """What the server waits for has a deadline, which what else arrives does not put off.

        A body has that of its reader (bodies.py), which ends with the response.
        """
        answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and answered):
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self._cut)
        else:
            self._drop_deadline()

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
