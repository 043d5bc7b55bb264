"""The HTTP servers of the process."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

_CLOSE_SECONDS = 2.0


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Serve on every address of the host while the context lasts."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
