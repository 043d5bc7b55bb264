"""The HTTP servers of the process. A slow client, or one with many connections, does not hold up the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

REQUEST_SECONDS = 10.0
"""How long handshake, headers and body may each take to arrive."""
MOST_CONNECTIONS = 512
MOST_OF_ONE_ADDRESS = 32
_CLOSE_SECONDS = 2.0
_IDLE_SECONDS = 30.0
_BACKLOG = 128

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def serving(
    app: web.Application,
    port: int,
    tls: ssl.SSLContext | None = None,
    *,
    most_connections: int | None = MOST_CONNECTIONS,
) -> AsyncIterator[None]:
    """Serve on every address of the host while the context lasts.

    `most_connections`: over all addresses; None: only the limit of one address holds, so that no one can use them up.
    """
    connections = _Connections(tls, most_connections)
    app.middlewares.append(connections.arrives)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_CLOSE_SECONDS, keepalive_timeout=_IDLE_SECONDS, lingering_time=0
    )
    await runner.setup()
    accepting = asyncio.create_task(connections.accept(_listening(port), runner))
    try:
        yield
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await runner.cleanup()
        await connections.end()


def _abort(transport: asyncio.Transport) -> None:
    """Cut the connection. One that is closed already may have no SSL protocol any more, which asyncio would call."""
    if not transport.is_closing():
        transport.abort()


class _Connections:
    """The open connections of one server."""

    def __init__(self, tls: ssl.SSLContext | None, most: int | None) -> None:
        self._tls = tls
        self._most = most
        self._waiting: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        """Connections from which no request has come yet, and when they are cut."""
        self._tasks: dict[asyncio.Task[None], str] = {}
        """Who holds each connection, oldest first."""

    async def accept(self, listener: socket.socket, runner: web.AppRunner) -> None:
        """Accept connections until cancelled; those above the limit are closed immediately."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(listener):
            while True:
                try:
                    connection, (address, *_) = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("can't accept connections", error=str(error))  # As of too many open files.
                    await asyncio.sleep(1)
                    continue
                if not self._has_room(address):
                    connection.close()
                    continue
                task = asyncio.create_task(self._serve(connection, runner))
                self._tasks[task] = address
                task.add_done_callback(lambda ended: self._tasks.pop(ended, None))

    def _has_room(self, address: str) -> bool:
        """Whether another connection is accepted. When all are taken, the address with the most loses its oldest.

        Otherwise a tenant with many Pods could lock out those of all others.
        """
        connections = Counter(self._tasks.values())
        if connections[address] >= MOST_OF_ONE_ADDRESS:
            return False
        if self._most is None or connections.total() < self._most:
            return True
        busiest, count = connections.most_common(1)[0]
        if count <= connections[address] + 1:
            return False
        oldest = next(task for task, holder in self._tasks.items() if holder == busiest)
        del self._tasks[oldest]
        oldest.cancel()
        return True

    async def _serve(self, connection: socket.socket, runner: web.AppRunner) -> None:
        """Shake hands, and cut the connection if no request follows."""
        assert runner.server is not None
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        protocol = _Watched(runner.server(), ended)
        timeout = REQUEST_SECONDS if self._tls is not None else None
        transport: asyncio.Transport | None = None
        try:
            with contextlib.suppress(OSError, TimeoutError):  # The client speaks no TLS, or is gone.
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._tls, ssl_handshake_timeout=timeout
                )
                self._waiting[transport] = loop.call_later(REQUEST_SECONDS, _abort, transport)
                await ended.wait()
        finally:
            if transport is not None:
                self._waiting.pop(transport).cancel()
                _abort(transport)
            else:
                connection.close()

    async def end(self) -> None:
        """Drop the connections from which no request has come."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @web.middleware
    async def arrives(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The headers have arrived: now the body has to, in time."""
        if request.transport in self._waiting:
            self._waiting[request.transport].cancel()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await request.read()
        except TimeoutError:
            late = web.json_response({"error": "the request did not arrive in time"}, status=408)
            late.force_close()
            return late
        return await handler(request)


class _Watched(asyncio.Protocol):
    """aiohttp's protocol, and an event that is set when its connection is lost."""

    def __init__(self, inner: Any, ended: asyncio.Event) -> None:
        self._inner = inner
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        answer: bool | None = self._inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _listening(port: int) -> socket.socket:
    """A socket on every address, IPv6 and IPv4 where the host has both."""
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    else:
        listener = socket.create_server(("", port), backlog=_BACKLOG)
    listener.setblocking(False)
    return listener
