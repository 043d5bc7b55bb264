"""Serves an aiohttp application on one port, with the limits of connections.py."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from finetune_http.connections import HEAD_SECONDS, Connection, Connections

IDLE_SECONDS = 75.0
"""Longer than the proxies before it keep a connection, which would take one that is being closed for a request."""
MOST_HEADERS = 64
LOG_INTERVAL_SECONDS = 60.0
"""Malformed requests are logged together: whoever sends them chooses how many there are."""
_CONNECTION = web.RequestKey("connection", Connection)
_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def listening(
    app: web.Application,
    connections: Connections,
    host: str | None,
    port: int,
    drain_seconds: float,
    *,
    malformed: Callable[[], None] = lambda: None,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[None]:
    """While the context lasts; then requests have `drain_seconds` to end.

    `malformed` is called for each request that can't be parsed; `options`: further ones of aiohttp's server.
    """

    @web.middleware
    async def marked(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = connections.of(request)
        if connection is None:
            return await handler(request)
        request[_CONNECTION] = connection
        with connection.asked(request):
            return await handler(request)

    app.middlewares.insert(0, marked)  # Around those that refuse a request: its head is complete then, too.
    requests = logging.Logger(__name__)
    requests.parent = _log
    requests.addFilter(_Malformed(malformed))
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=requests,
        shutdown_timeout=drain_seconds,
        keepalive_timeout=IDLE_SECONDS,
        max_headers=MOST_HEADERS,
        auto_decompress=False,  # A body of kilobytes would become megabytes, which all others wait for.
        **options,
    )
    await runner.setup()
    made = runner.server
    assert made is not None
    try:
        server = await get_running_loop().create_server(
            lambda: Connection(made(), connections),
            host,
            port,
            backlog=128,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HEAD_SECONDS,
        )
        try:
            yield
        finally:
            server.close()
    finally:
        await runner.cleanup()


def keep(request: web.Request) -> None:
    """Its connection no longer gives way to others: its client is known, and limited elsewhere."""
    connection = request.get(_CONNECTION)
    if connection is not None:
        connection.has_whole_request()


class _Malformed(logging.Filter):
    """aiohttp logs a traceback for each request that it can't parse. They are counted, and logged together."""

    def __init__(self, on_malformed: Callable[[], None]) -> None:
        super().__init__()
        self._on_malformed = on_malformed
        self._count = 0
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        self._on_malformed()
        self._count += 1
        if time.monotonic() >= self._next:
            _log.warning("malformed requests: %d, the last one: %.100r", self._count, error.message)
            self._count, self._next = 0, time.monotonic() + LOG_INTERVAL_SECONDS
        return False
