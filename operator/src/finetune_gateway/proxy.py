"""Passes requests on to a server, and its answers back as they come."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.client_exceptions import ClientConnectorError, ConnectionTimeoutError, ServerTimeoutError
from yarl import URL

from finetune_gateway.bodies import Bodies
from finetune_gateway.canary.outcome import Answer, outcome_of
from finetune_gateway.canary.split import Group, Split, group_of, session_of
from finetune_gateway.canary.traffic import Traffic
from finetune_gateway.errors import RefusedError
from finetune_gateway.metrics import BROKEN, OTHER, GatewayMetrics, kept_end
from finetune_gateway.policy import SERVICE_UNAVAILABLE
from finetune_gateway.pool import Pool
from finetune_gateway.routes import Route, route_of
from finetune_http.connections import Connections

REVISION_HEADER = "x-finetune-revision"
REQUEST_ID_HEADER = "x-request-id"
CONNECT_SECONDS = 3.0
SILENT_SECONDS = 900.0
"""An answer that is not streamed comes when it is complete."""
COUNTED = ("/v1/chat/completions", "/v1/completions")
CLIENT_SECONDS = 60.0
"""How long a client may take nothing of its answer."""
_OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
    | {"proxy-authenticate", "proxy-authorization"}
)
_NOT_FORWARDED = _OF_THE_CONNECTION | {
    *("host", "content-length", "accept-encoding", "authorization", "cookie"),
    REQUEST_ID_HEADER,
}
"""A server needs no credential, so it sees none."""
_log = structlog.get_logger()


@dataclass
class _Exchange:
    """One request, as far as it is."""

    request: web.Request
    route: Route
    started: float
    body: bytes = b""
    revision: str = ""
    answer: Answer = field(default_factory=Answer)
    split: Split = field(default_factory=Split)
    group: Group | None = None
    """None: it is not counted for a canary."""
    session: str = ""


class Proxy:
    """The handler of every request. `canary`: the servers of a canary, which get what `traffic` says."""

    def __init__(
        self,
        pool: Pool,
        metrics: GatewayMetrics,
        connections: Connections,
        canary: Pool | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._pool = pool
        self._canary = canary
        self._traffic = traffic
        self._connections = connections
        self._metrics = metrics
        self._bodies = Bodies()
        # A connection for each request: one that a server is about to close is never taken for a request.
        self._session = ClientSession(
            connector=TCPConnector(limit=0, force_close=True),
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close what is left of connections."""
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The answer of a server, or why there is none."""
        route = route_of(request.method, request.path)
        if route is None:
            self._metrics.ended("", OTHER, 404, 0.0)
            return _refused(RefusedError(404, f"No such route: {request.method} {request.path[:80]}"))
        exchange = _Exchange(request, route, time.monotonic())
        try:
            async with self._bodies.held(request) as exchange.body:
                connection = self._connections.of(request)
                if connection is not None:
                    connection.has_whole_request()
                return await self._asked(exchange)
        except RefusedError as refused:
            exchange.answer.status = refused.status
            return _refused(refused)
        except web.RequestPayloadError:
            exchange.answer.status = 400
            return _refused(RefusedError(400, "The body can't be read."))
        finally:
            self._metrics.ended(exchange.revision, route, exchange.answer.status, time.monotonic() - exchange.started)
            self._count(exchange)

    def _count(self, exchange: _Exchange) -> None:
        """For the comparison of a canary."""
        answered = outcome_of(exchange.answer, exchange.session)
        if self._traffic is not None and exchange.group is not None and answered is not None:
            self._traffic.count(exchange.split, exchange.group, answered)

    async def _place(self, exchange: _Exchange) -> tuple[Pool, str]:
        """A server with room for it. Raises RefusedError."""
        if self._canary is None or self._traffic is None or not self._traffic.split.id or exchange.route not in COUNTED:
            return self._pool, await self._pool.acquire()
        exchange.split = self._traffic.split
        exchange.session = session_of(exchange.request.headers, exchange.body)
        exchange.group = group_of(exchange.split, exchange.session, random.random())
        if exchange.group == "canary":
            address = self._canary.acquire_at_once()
            if address is not None:
                return self._canary, address
            exchange.group = None  # The others answer, which says nothing of either.
        return self._pool, await self._pool.acquire()

    def _another(self, exchange: _Exchange, pool: Pool, tried: Collection[str]) -> tuple[Pool, str] | None:
        """One more server: where those of a canary don't answer, the others do."""
        address = pool.another(tried)
        if address is None and pool is self._canary:
            pool, address = self._pool, self._pool.another(())
            exchange.answer.failed_over = address is not None
        return None if address is None else (pool, address)

    async def _asked(self, exchange: _Exchange) -> web.StreamResponse:
        """Ask one server, and others as long as nothing was answered. Raises RefusedError."""
        headers = _forwarded(exchange.request.headers)
        place: tuple[Pool, str] | None = await self._place(exchange)
        tried: list[str] = []
        while True:
            assert place is not None
            pool, address = place
            tried.append(address)
            exchange.answer.asked = time.monotonic()
            try:
                url = URL(address + exchange.request.rel_url.raw_path_qs, encoded=True)
                # Where a server redirects to is the client's to ask: the gateway reaches nothing but servers.
                async with self._session.request(
                    exchange.request.method, url, data=exchange.body, headers=headers, allow_redirects=False
                ) as answer:
                    other = self._another(exchange, pool, tried) if answer.status == SERVICE_UNAVAILABLE else None
                    if other is None:
                        return await self._pass_on(exchange, answer)
                self._metrics.retries.labels("unavailable").inc()
            except (ClientConnectorError, ConnectionTimeoutError) as error:
                pool.suspect(address)
                other = self._another(exchange, pool, tried)
                if other is None:
                    _log.warning("no server takes a connection", tried=tried, error=str(error))
                    raise RefusedError(503, "No server takes a connection. Try again later.", "unreachable") from None
                self._metrics.retries.labels("connection").inc()
            except ServerTimeoutError:  # It is a ClientError, too.
                _log.warning("a server was silent", server=address, seconds=SILENT_SECONDS)
                message = f"The server was silent for {SILENT_SECONDS:g} seconds."
                raise RefusedError(504, message, "timeout") from None
            except ClientError as error:
                _log.warning("a server gave no answer", server=address, error=str(error))
                raise RefusedError(502, "The server ended without an answer.", "bad_gateway") from None
            finally:
                pool.release(address)
            place = other

    async def _pass_on(self, exchange: _Exchange, answer: ClientResponse) -> web.StreamResponse:
        """The answer, byte by byte. One that breaks off is cut here, too, so that nobody takes it for complete."""
        exchange.revision = answer.headers.get(REVISION_HEADER, "")
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passed_on(answer.headers))
        response.headers[REQUEST_ID_HEADER] = _request_id(exchange.request.headers)
        streamed, end = answer.content_type == "text/event-stream", b""
        is_counted = exchange.group is not None
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                await response.prepare(exchange.request)
            async for chunk in answer.content.iter_any():
                if streamed and not exchange.answer.begun:
                    self._metrics.first_event(exchange.revision, time.monotonic() - exchange.started)
                exchange.answer.begun, end = True, kept_end(end, chunk)
                if is_counted and streamed:
                    exchange.answer.add(chunk, time.monotonic())
                async with asyncio.timeout(CLIENT_SECONDS):
                    await response.write(chunk)
            exchange.answer.status = answer.status
            exchange.answer.tokens = self._metrics.generated(exchange.revision, end)
        except ServerTimeoutError as error:  # It is a TimeoutError, too.
            _broke_off(exchange, error)
        except (TimeoutError, ConnectionError):  # The client takes nothing, or left.
            _cut(exchange.request)
        except ClientError as error:
            _broke_off(exchange, error)
        return response


def _broke_off(exchange: _Exchange, error: ClientError) -> None:
    _log.warning("an answer broke off", error=str(error))
    exchange.answer.status = BROKEN
    _cut(exchange.request)


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name.lower() not in _NOT_FORWARDED}
    return {**kept, REQUEST_ID_HEADER: _request_id(headers)}


def _request_id(headers: Mapping[str, str]) -> str:
    return headers.get(REQUEST_ID_HEADER) or uuid.uuid4().hex


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION}


def _refused(refused: RefusedError) -> web.Response:
    answer = web.json_response(refused.envelope(), status=refused.status, headers=refused.headers)
    answer.force_close()  # What is left of its body is not read.
    return answer
