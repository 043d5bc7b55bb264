"""A reverse proxy between one operator process and the real API server: sees every request, and can spoil any.

Each `Lane` shows its operator a cluster of one namespace (a list or watch of all namespaces is sent on as one of that
namespace), so that many operators can live side by side on one API server and none meets another's objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from e2e.cluster.components.control_plane import ControlPlane

ADDRESS = "127.0.0.1"
START_SECONDS = 20.0
_EVERYWHERE = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)/([a-z]+)")
_OF_NAMESPACES = frozenset(
    {"pods", "jobs", "deployments", "finetunejobs", "evaluations", "modeldeployments", "finetunesweeps", "datasets"}
)
_NO_STATE_OF_A_JOB = ("/tokenreviews", "/leases", "/finetuneclasses/")


@dataclass(frozen=True)
class Request:
    """One request of the operator, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        """Whether it changes anything of a job, its Events included; who leads or how a class is does not."""
        return self.method != "GET" and not any(part in self.path for part in _NO_STATE_OF_A_JOB)


@dataclass(frozen=True)
class Answer:
    """Not forwarded; answered with this."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Late:
    """Forwarded, and answered after a while."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Not forwarded; the connection is closed without an answer. `then` is done before that."""

    then: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class LoseAnswer:
    """Forwarded; then `then` is done, and the connection closed without an answer."""

    then: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class CutWatch:
    """The stream ends after a while, whatever is still to come; `last` is a line to end with."""

    seconds: float
    last: bytes = b""


@dataclass(frozen=True)
class SilentWatch:
    """The stream stays open, and nothing of it is sent on, until the operator ends it."""


Fault = Answer | Late | Reset | LoseAnswer | CutWatch | SilentWatch
Intercept = Callable[[Request], Fault | None]


@dataclass(frozen=True)
class Exchange:
    """A request that was forwarded, and the API server's code."""

    request: Request
    status: int


class Lane:
    """One operator's way to the API server. Set `intercept` at any time; it is called in the proxy's thread."""

    def __init__(self, namespace: str, kubeconfig: Path) -> None:
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self.intercept: Intercept = lambda request: None
        self.page_size: int | None = None
        """The most objects that an answer to a list may hold."""
        self.writes: list[Exchange] = []
        """Writes that reached the API server, in their order."""

    def upstream_path(self, path: str) -> str:
        """Where a request is sent on to."""
        everywhere = _EVERYWHERE.fullmatch(path)
        if everywhere is None or everywhere[2] not in _OF_NAMESPACES:
            return path
        return f"{everywhere[1]}/namespaces/{self.namespace}/{everywhere[2]}"


class ApiProxy:
    """The proxy's thread, with a port for each lane."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._runners: list[web.AppRunner] = []

    def lane(self, namespace: str) -> Lane:
        """A way of its own for the operator of one namespace."""
        return asyncio.run_coroutine_threadsafe(self._open(namespace), self._loop).result(START_SECONDS)

    @contextlib.contextmanager
    def running(self) -> Iterator[ApiProxy]:
        thread = threading.Thread(target=self._loop.run_forever, name="api-proxy")
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(START_SECONDS)
            self._loop.close()

    async def _open(self, namespace: str) -> Lane:
        if self._session is None:
            pki = self._plane.home / "pki"
            tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            tls.load_cert_chain(pki / "kubeconfig.crt", pki / "kubeconfig.key")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        lane = Lane(namespace, self._folder / f"{namespace}.kubeconfig")
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", partial(self._handle, lane))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, ADDRESS, 0).start()
        port = runner.addresses[0][1]
        lane.kubeconfig.write_text(_kubeconfig(f"http://{ADDRESS}:{port}"))
        return lane

    async def _close(self) -> None:
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        if self._session is not None:
            await self._session.close()
        # Watches that are still open.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _handle(self, lane: Lane, incoming: web.Request) -> web.StreamResponse:
        request = Request(incoming.method, incoming.path, dict(incoming.query), await incoming.read())
        fault = lane.intercept(request)
        if isinstance(fault, Answer):
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
            status |= {"reason": fault.reason, "message": f"played: {fault.reason}"}
            return web.json_response(status, status=fault.status, headers=dict(fault.headers))
        if isinstance(fault, Reset):
            fault.then()
            return _cut(incoming)
        assert self._session is not None
        url = self._plane.server + lane.upstream_path(request.path)
        headers = {name: incoming.headers[name] for name in ("Accept", "Content-Type") if name in incoming.headers}
        query = dict(request.query)
        if lane.page_size is not None and "limit" in query:
            query["limit"] = str(lane.page_size)
        async with self._session.request(
            request.method, url, params=query, data=request.body or None, headers=headers
        ) as answer:
            if request.is_watch:
                cut = fault if isinstance(fault, CutWatch) else None
                return await _stream(incoming, answer, cut, is_silent=isinstance(fault, SilentWatch))
            data = await answer.read()
            if request.is_write:
                lane.writes.append(Exchange(request, answer.status))
            if isinstance(fault, LoseAnswer):
                fault.then()
                return _cut(incoming)
            if isinstance(fault, Late):
                await asyncio.sleep(fault.seconds)
            kept = {name: answer.headers[name] for name in ("Content-Type", "Retry-After") if name in answer.headers}
            return web.Response(status=answer.status, body=data, headers=kept)


async def _stream(
    incoming: web.Request, answer: aiohttp.ClientResponse, cut: CutWatch | None, *, is_silent: bool
) -> web.StreamResponse:
    """Send a watch on, as it comes, until either side ends it."""
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
    with contextlib.suppress(ConnectionError, TimeoutError, aiohttp.ClientError):
        await response.prepare(incoming)
        async with asyncio.timeout(cut.seconds if cut else None):
            async for chunk in answer.content.iter_any():
                if not is_silent:
                    await response.write(chunk)
    with contextlib.suppress(ConnectionError):
        if cut is not None and cut.last:
            await response.write(cut.last)
        await response.write_eof()
    return response


def _cut(incoming: web.Request) -> web.StreamResponse:
    """Close the connection as a crashed peer does."""
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response()


def _kubeconfig(server: str) -> str:
    named = {
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "proxy", **named})
