"""The connections of clients. aiohttp has no limit of their number, nor of the time and memory that a head takes.

A client that has sent no whole request takes nothing for long: it has a deadline, and gives way to others. How many are
answered, or wait, is bounded elsewhere: by the gateway's places at the servers, by the rights and rates of callers.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from aiohttp import web

from finetune_http.gives_way import Client, gives_way

MOST_OWING = 1024
"""Connections whose client has not sent a whole request: idle ones, among them."""
HEAD_SECONDS = 10.0
MOST_BYTES_OF_HEADS = 32 * 2**20
"""Of all that are not complete: aiohttp takes half a megabyte for each."""
Cause = Literal["too_many", "slow_head", "long_heads"]


class Connection(asyncio.Protocol):
    """One connection, as far as its client is with a request; `inner` is aiohttp's part of it."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._all = connections
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None
        self.client = Client("", self._loop.time())
        self.head_bytes = 0
        self.awaits_head = True
        self.owes_request = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.client = Client(peer[0] if peer else "", self._loop.time())
        self._set_deadline()
        self._inner.connection_made(transport)
        self._all.opened(self, transport)

    def data_received(self, data: bytes) -> None:
        if self.awaits_head:
            self._set_deadline()
            self._all.received_of_head(self, len(data))
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_deadline()
        if self.transport is not None:
            self._all.closed(self, self.transport)
        self._inner.connection_lost(exc)

    @contextmanager
    def asked(self, request: web.Request) -> Iterator[None]:
        """While a request is handled, whose head is complete."""
        self._drop_deadline()
        self._all.completed_head(self)
        self.awaits_head = False
        try:
            yield
        finally:
            # The rest of a body that was refused is no head: aiohttp reads it for a while, so that its client listens.
            self.awaits_head = request.content.is_eof()
            self.owes_request = True
            self.client = Client(self.client.address, self._loop.time())

    def has_whole_request(self) -> None:
        """Its body is complete, too: from now on it is our turn."""
        self.owes_request = False

    def _set_deadline(self) -> None:
        """Of a head, since its first byte: what else arrives does not put it off."""
        if self._deadline is None:
            self._deadline = self._loop.call_later(HEAD_SECONDS, self._all.cut, self, "slow_head")

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Connections:
    """All of one port. `on_cut` is called with the cause for which one was cut."""

    def __init__(self, on_cut: Callable[[Cause], None]) -> None:
        self._on_cut = on_cut
        self._open: dict[asyncio.BaseTransport, Connection] = {}
        self._bytes_of_heads = 0

    def __len__(self) -> int:
        return len(self._open)

    def of(self, request: web.Request) -> Connection | None:
        """That of a request; None: it has gone."""
        return None if request.transport is None else self._open.get(request.transport)

    def opened(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """One more. Where there are too many, one gives way to it."""
        owing = {other.client: other for other in self._open.values() if other.owes_request}
        self._open[transport] = connection
        if len(owing) >= MOST_OWING:
            self.cut(owing[gives_way(owing)], "too_many")

    def received_of_head(self, connection: Connection, count: int) -> None:
        """More of a head, or what comes with its end. Beyond what all may take, the oldest gives way."""
        connection.head_bytes += count
        self._bytes_of_heads += count
        while self._bytes_of_heads > MOST_BYTES_OF_HEADS:
            having = [other for other in self._open.values() if other.head_bytes]
            self.cut(min(having, key=lambda other: other.client.since), "long_heads")

    def completed_head(self, connection: Connection) -> None:
        """Its head takes nothing any more."""
        self._bytes_of_heads -= connection.head_bytes
        connection.head_bytes = 0

    def cut(self, connection: Connection, cause: Cause) -> None:
        """End a connection at once."""
        self.completed_head(connection)
        if connection.transport is not None and not connection.transport.is_closing():
            self._on_cut(cause)
            connection.transport.abort()
        connection.owes_request = False

    def closed(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """One less."""
        self.completed_head(connection)
        self._open.pop(transport, None)


def raise_open_files() -> None:
    """As many files as the process may have: each request that is answered is two connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
