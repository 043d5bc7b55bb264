"""Which servers there are: the addresses behind the headless Service of the ModelDeployment, which are those of its
EndpointSlices that are ready. The gateway has no token of the API server, and asks the cluster's DNS.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from finetune_gateway.pool import Pool

REFRESH_SECONDS = 1.0
NONE_SECONDS = 60.0
"""That there is no server is believed of a name that was never seen after so long: the cluster's DNS keeps for half a
minute that it had none. With no replicas there is none for good, and requests wait in a gateway that is ready."""
CLUSTER_DNS_PROBE = "kubernetes.default.svc"
"""A name that every cluster has, in the same domain: where it is not found, nothing is known of the servers either."""
Resolve = Callable[[], Awaitable[frozenset[str]]]
_NO_ADDRESSES = frozenset(getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name))
_log = structlog.get_logger()


def by_name(host: str, port: int) -> Resolve:
    """The addresses of a name; none if it has none. Raises OSError if the DNS can't answer.

    `host` has no domain of the cluster: the search list of the Pod completes it, and CLUSTER_DNS_PROBE as well.
    """

    async def resolve() -> frozenset[str]:
        look_up = asyncio.get_running_loop().getaddrinfo
        try:
            found = await look_up(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno not in _NO_ADDRESSES:
                raise
            await look_up(CLUSTER_DNS_PROBE, port, type=socket.SOCK_STREAM)
            return frozenset()
        return frozenset(_url(family, address[0], port) for family, *_, address in found)

    return resolve


def _url(family: int, address: str | int, port: int) -> str:
    return f"http://[{address}]:{port}" if family == socket.AF_INET6 else f"http://{address}:{port}"


async def follow(pool: Pool, resolve: Resolve, known: asyncio.Event) -> None:
    """Keep the pool's servers as they are, for ever; `known` is set once there was one, or none for NONE_SECONDS.

    While the DNS can't answer, the servers known last stay.
    """
    lost, clock = False, asyncio.get_running_loop().time
    none_since: float | None = None
    while True:
        try:
            addresses = await resolve()
            pool.update(addresses)
            none_since = clock() if none_since is None else none_since
            if addresses or clock() - none_since >= NONE_SECONDS:
                known.set()
            lost = False
        except OSError as error:
            if not lost:
                _log.warning("the servers can't be looked up; those known last are asked", error=str(error))
            lost, none_since = True, None
        await asyncio.sleep(REFRESH_SECONDS)
