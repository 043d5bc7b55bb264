"""Which servers there are: the addresses behind the headless Service of the ModelDeployment, which are those of its
EndpointSlices that are ready. The gateway has no token of the API server, and asks the cluster's DNS.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from finetune_gateway.pool import Pool

LOOK_SECONDS = 1.0
Resolve = Callable[[], Awaitable[frozenset[str]]]
_NO_ADDRESSES = frozenset(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name))
_log = structlog.get_logger()


def by_name(host: str, port: int) -> Resolve:
    """The addresses of a name; none if it has none. Raises OSError if nobody can tell."""

    async def resolve() -> frozenset[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in _NO_ADDRESSES:
                return frozenset()
            raise
        return frozenset(_url(family, address[0], port) for family, *_, address in found)

    return resolve


def _url(family: int, address: str | int, port: int) -> str:
    return f"http://[{address}]:{port}" if family == socket.AF_INET6 else f"http://{address}:{port}"


async def follow(pool: Pool, resolve: Resolve, known: asyncio.Event) -> None:
    """Keep the pool's servers as they are, for ever; `known` is set once it has been told.

    While nobody can tell, those that were there last are asked.
    """
    lost = False
    while True:
        try:
            pool.update(await resolve())
            known.set()
            lost = False
        except OSError as error:
            if not lost:
                _log.warning("the servers can't be looked up; those known last are asked", error=str(error))
            lost = True
        await asyncio.sleep(LOOK_SECONDS)
