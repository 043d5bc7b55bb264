"""The servers of the process under connections that send little, or nothing, or are too many."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from e2e.cluster.components.certificates import Authority
from e2e.cluster.machine.ports import free_ports
from finetune_operator.runtime import http_server
from finetune_operator.runtime.http_server import serving

ADDRESS = "127.0.0.1"
REQUEST_SECONDS = 0.6


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of the server and of a client that trusts it."""
    authority = Authority(tmp_path / "tls")
    issued = authority.issue("tls", "finetune-operator", hosts=[ADDRESS])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(issued.certificate, issued.key)
    return server, ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[int]:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", REQUEST_SECONDS)
    (port,) = free_ports(1)
    app = web.Application(client_max_size=1000)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app.router.add_post("/", echo)
    async with serving(app, port, tls[0]):
        yield port


async def ends(reader: asyncio.StreamReader, within: float) -> bytes:
    """All that comes until the server closes the connection. Raises TimeoutError."""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""


BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


async def test_a_whole_request_is_answered(port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=tls[1])
    for _ in range(2):
        writer.write(BODY + b"hello")
        assert b"200 OK" in await reader.readuntil(b"hello")
        await asyncio.sleep(REQUEST_SECONDS * 1.2)  # An idle connection is kept for the next one.
    writer.close()


async def test_a_connection_that_is_closed_already_is_not_cut(
    port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In some releases of Python 3.11 and 3.12 abort() of a transport that was closed twice raises AttributeError."""
    cut: list[asyncio.Transport] = []

    def abort(transport: asyncio.Transport) -> None:
        cut.append(transport)

    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=tls[1])
    writer.write(BODY.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"hello")
    assert b"200 OK" in await reader.readuntil(b"hello")
    monkeypatch.setattr(asyncio.sslproto._SSLProtocolTransport, "abort", abort)
    await ends(reader, REQUEST_SECONDS)
    writer.close()
    await asyncio.sleep(REQUEST_SECONDS)
    assert cut == []


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"", b""), (b"POST / HTTP/1.1\r\nHost:", b""), (BODY, b"408"), (BODY + b"he", b"408")],
    ids=["nothing", "half the headers", "no body", "half the body"],
)
async def test_half_a_request_is_given_up(
    port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext], sent: bytes, answer: bytes
) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=tls[1])
    writer.write(sent)
    assert answer in await ends(reader, REQUEST_SECONDS * 5)
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
async def test_half_a_handshake_is_given_up(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    writer.write(sent)
    await ends(reader, REQUEST_SECONDS * 5)
    writer.close()


async def test_of_300_half_sent_handshakes_most_are_not_even_begun_and_others_are_served_soon(
    port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    openings = [await asyncio.open_connection(ADDRESS, port) for _ in range(300)]
    for _, writer in openings:
        writer.write(b"\x16\x03\x01\x02\x00\x01")
    await asyncio.sleep(REQUEST_SECONDS / 3)
    at_once = sum(reader.at_eof() or reader.exception() is not None for reader, _ in openings)
    assert at_once >= 300 - http_server.MOST_OF_ONE_ADDRESS
    await asyncio.gather(*(ends(reader, REQUEST_SECONDS * 10) for reader, _ in openings))
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=tls[1])
    writer.write(BODY + b"hello")
    assert b"200 OK" in await reader.readuntil(b"hello")
    for _, one in [*openings, (reader, writer)]:
        one.close()


async def test_a_body_that_is_too_large_is_not_read(port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=tls[1])
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000)
    assert b"413" in await reader.readline()
    writer.close()


@pytest.mark.parametrize(("most", "answered"), [(2, False), (None, True)], ids=["a limit", "the kubelet's port"])
async def test_who_holds_all_connections_does_not_keep_the_kubelet_out(most: int | None, answered: bool) -> None:
    (port,) = free_ports(1)
    app = web.Application()

    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app.router.add_get("/healthz", ok)
    async with serving(app, port, most_connections=most):
        held = [await asyncio.open_connection(ADDRESS, port, local_addr=(f"127.0.0.{n}", 0)) for n in (2, 3)]
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(ADDRESS, port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (b"200 OK" in await reader.readline()) is answered
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_who_holds_most_gives_one_up_for_who_holds_none() -> None:
    """The Pods of one tenant would otherwise keep all others' reports out."""
    (port,) = free_ports(1)
    app = web.Application()

    async def ok(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app.router.add_get("/", ok)
    async with serving(app, port, most_connections=5):
        held = [
            await asyncio.open_connection(ADDRESS, port, local_addr=(f"127.0.0.{number}", 0))
            for number in (2, 2, 3, 3, 3)
        ]
        await asyncio.sleep(0.1)
        newcomers = [await asyncio.open_connection(ADDRESS, port, local_addr=("127.0.0.4", 0)) for _ in range(2)]
        for reader, writer in newcomers:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.readline()
        still_there = [not reader.at_eof() for reader, _ in held]
        assert still_there == [True, True, False, True, True], "the oldest of whoever held three"
        assert [not reader.at_eof() for reader, _ in newcomers] == [True, False], "nobody holds two more than it"
        for _, one in [*held, *newcomers]:
            one.close()
