"""The process: the API on one port, what the kubelet and Prometheus read on another; and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from finetune_gateway.canary.control import Control, sync_with_operator
from finetune_gateway.canary.traffic import Traffic
from finetune_gateway.metrics import GatewayMetrics
from finetune_gateway.policy import Limits
from finetune_gateway.pool import Pool
from finetune_gateway.proxy import Proxy
from finetune_gateway.servers import Resolve, follow
from finetune_http.connections import Connections, raise_open_files
from finetune_http.listening import listening


@dataclass(frozen=True)
class Settings:
    """How a gateway runs. `linger_seconds`: it accepts requests for so long after SIGTERM."""

    limits: Limits
    host: str | None
    port: int
    metrics_port: int
    linger_seconds: float
    drain_seconds: float
    control: Control | None = None
    """The operator, which says what a canary gets; None: there is none."""


async def run(settings: Settings, resolve: Resolve, stop: asyncio.Event, resolve_canary: Resolve | None = None) -> None:
    """Serve until SIGTERM, and complete what was begun."""
    raise_open_files()
    pool, known = Pool(settings.limits), asyncio.Event()
    canary, traffic = (Pool(settings.limits) if resolve_canary is not None else None), Traffic()
    metrics = GatewayMetrics(*([pool] if canary is None else [pool, canary]))
    connections = Connections(metrics.cut)
    metrics.count_connections(connections)
    metrics.show_share(lambda: traffic.split.percent / 100 if traffic.split.id else 0.0)
    proxy = Proxy(pool, metrics, connections, canary, traffic)
    api = web.Application()
    api.router.add_route("*", "/{path:.*}", proxy.handle)
    tasks = [asyncio.create_task(follow(pool, resolve, known))]
    if canary is not None and resolve_canary is not None:
        tasks.append(asyncio.create_task(follow(canary, resolve_canary, asyncio.Event())))
    if settings.control is not None:
        tasks.append(asyncio.create_task(sync_with_operator(settings.control, traffic)))
    try:
        async with (
            listening(_around(metrics, known), Connections(metrics.cut), settings.host, settings.metrics_port, 0),
            # The end of a client's connection cancels its handler, and so ends the request at the server.
            listening(
                api,
                connections,
                settings.host,
                settings.port,
                settings.drain_seconds,
                malformed=metrics.malformed.inc,
                handler_cancellation=True,
            ),
        ):
            await stop.wait()
            await asyncio.sleep(settings.linger_seconds)
    finally:
        for task in tasks:
            task.cancel()
        await proxy.close()


def _around(metrics: GatewayMetrics, known: asyncio.Event) -> web.Application:
    """/healthz and /metrics, which users have no need of."""

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response(
            {"status": "ok" if known.is_set() else "starting"}, status=200 if known.is_set() else 503
        )

    async def exposed(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthy)
    app.router.add_get("/metrics", exposed)
    return app
