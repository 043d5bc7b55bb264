"""A port with limits of what clients take who send no whole request."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from e2e.cluster.components.certificates import Authority
from e2e.cluster.machine.ports import free_ports
from finetune_http import connections, listening
from finetune_http.connections import Connections
from finetune_http.listening import keep

HOST = "127.0.0.1"
HALF_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
HALF_BODY = HALF_HEAD + b"Content-Length: 9\r\n\r\n{"
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(cut: Counter[str], malformed: list[int], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server whose clients are known where they say so, and that reads whole bodies."""

    async def handle(request: web.Request) -> web.Response:
        if "known" in request.headers:
            keep(request)
        await request.read()
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_route("*", "/", handle)
    (port,) = free_ports(1)
    told = Connections(lambda cause: cut.update([cause]))
    async with listening.listening(app, told, HOST, port, 1, malformed=lambda: malformed.append(1), tls=tls):
        yield port


async def connected(port: int, sent: bytes) -> Stream:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def ended(stream: Stream) -> bytes:
    async with asyncio.timeout(30):
        try:
            return await stream[0].read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", [b"", HALF_HEAD])
async def test_who_sends_no_head_is_cut_and_reported(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    cut: Counter[str] = Counter()
    async with served(cut, []) as port:
        assert await ended(await connected(port, sent)) == b""
    assert cut == {"slow_head": 1}


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY])
async def test_too_many_clients_without_a_whole_request_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "MOST_OWING", 5)
    cut: Counter[str] = Counter()
    async with served(cut, []) as port:
        streams = [await connected(port, sent) for _ in range(20)]
        for stream in streams[:14]:
            await ended(stream)
        stream = await connected(port, WHOLE)
        assert await stream[0].readline() == b"HTTP/1.1 200 OK\r\n"
        assert cut["too_many"] >= 14
        for _, writer in [*streams, stream]:
            writer.close()


async def test_a_known_client_may_send_for_long_whoever_else_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OWING", 3)
    async with served(Counter(), []) as port:
        uploading = await connected(port, HALF_HEAD + b"Known: yes\r\nContent-Length: 9\r\n\r\n{")
        streams = [await connected(port, HALF_BODY) for _ in range(12)]
        for stream in streams[:8]:
            await ended(stream)
        uploading[1].write(b"12345678")
        assert await uploading[0].readline() == b"HTTP/1.1 200 OK\r\n"
        for _, writer in [*streams, uploading]:
            writer.close()


async def test_many_malformed_requests_are_counted_and_reported_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    malformed: list[int] = []
    async with served(Counter(), malformed) as port:
        for _ in range(20):
            answer = await ended(await connected(port, b"GET / HTTP/1.1\r\nBad Header\x00: 1\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.0 400 ")
    assert len(malformed) == 20
    (line,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert line.getMessage().startswith("malformed requests: 1, the last one: ")
    assert line.exc_info is None


async def test_a_handler_that_fails_is_still_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: web.Request) -> web.Response:
        raise ZeroDivisionError

    app = web.Application()
    app.router.add_get("/", fails)
    (port,) = free_ports(1)
    async with listening.listening(app, Connections(lambda _: None), HOST, port, 1):
        stream = await connected(port, WHOLE.replace(b"Host", b"Connection: close\r\nHost"))
        assert (await ended(stream)).startswith(b"HTTP/1.1 500 ")
    assert any(one.exc_info is not None and one.exc_info[0] is ZeroDivisionError for one in caplog.records)


async def test_who_does_not_shake_hands_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.2)
    certificate = Authority(tmp_path).issue("server", "server", hosts=[HOST])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.certificate, certificate.key)
    async with served(Counter(), [], tls) as port:
        assert await ended(await connected(port, b"")) == b""
