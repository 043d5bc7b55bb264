"""Clients that connect to a gateway and send no whole request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from finetune_gateway import bodies
from finetune_http import connections, listening
from tests.integration.gateway.fake_openai import HOST, fake_openai
from tests.integration.gateway.gateways import CHAT, Gateway, gateway

CUT = 'finetune_gateway_connections_cut_total{cause="%s"}'
HALF_HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n".encode()
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(found: Gateway, number: int, sent: bytes) -> AsyncIterator[list[Stream]]:
    """Clients that have sent this."""
    streams = [await asyncio.open_connection(HOST, int(found.url.rpartition(":")[2])) for _ in range(number)]
    for _, writer in streams:
        writer.write(sent)
    yield streams
    for _, writer in streams:
        writer.close()


async def ended(stream: Stream) -> bytes:
    """What a client read until its connection was cut."""
    async with asyncio.timeout(30):
        try:
            return await stream[0].read()
        except ConnectionResetError:
            return b""


async def test_a_head_that_comes_byte_by_byte_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 1.0)
    async with fake_openai() as server, gateway([server.url]) as found, connected(found, 1, b"P") as (stream,):
        reading = asyncio.create_task(ended(stream))
        for letter in HALF_HEAD[1:]:
            stream[1].write(bytes([letter]))
            await asyncio.sleep(0.1)
            if reading.done():
                break
        assert await reading == b""
        assert await found.sample(CUT % "slow_head") == 1
        assert server.requests == []


async def test_an_answer_and_a_body_take_longer_than_a_head_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        body = b'{"messages": []}'
        head = HALF_HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
        async with connected(found, 1, head + body[:3]) as ((reader, writer),):
            await asyncio.sleep(0.5)
            writer.write(body[3:])
            await server.came.acquire()
            await asyncio.sleep(0.5)
            server.go.set()
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_a_connection_that_is_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.5)
    async with fake_openai() as server, gateway([server.url]) as found:
        asked = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        async with connected(found, 1, asked) as (stream,):
            assert (await ended(stream)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await found.sample(CUT % "slow_head") == 0


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_HEAD + b"Content-Length: 9\r\n\r\n"])
async def test_clients_without_a_whole_request_give_way_and_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "MOST_OWING", 5)
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        answered = asyncio.create_task(found.ask())
        await server.came.acquire()
        async with connected(found, 20, sent) as streams:
            for stream in streams[:14]:  # the oldest; what the test itself asks is among those that stay
                await ended(stream)
            assert await found.sample("finetune_gateway_connections") < 10
            assert await found.sample(CUT % "too_many") >= 14
            server.go.set()
            assert (await answered)[0] == 200, "what is being answered gives way to nobody"
            assert (await found.ask())[0] == 200


async def test_heads_take_no_more_memory_together_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_BYTES_OF_HEADS", 20_000)
    async with fake_openai() as server, gateway([server.url]) as found:
        async with connected(found, 8, HALF_HEAD + b"a: " + b"x" * 4000) as streams:
            await ended(streams[0])
            assert await found.sample(CUT % "long_heads") >= 1
            assert (await found.ask(user="x" * 3000))[0] == 200
        for _ in range(10):  # what is complete is no head any more
            assert (await found.ask(user="x" * 3000))[0] == 200


async def test_what_is_left_of_a_refused_body_is_read_and_counts_for_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LONGEST_BYTES", 2**20)
    monkeypatch.setattr(connections, "MOST_BYTES_OF_HEADS", 2 * 2**20)
    async with fake_openai() as server, gateway([server.url]) as found:
        length = 8 * 2**20
        async with connected(found, 1, HALF_HEAD + b"Content-Length: %d\r\n\r\n" % length) as (stream,):
            stream[1].write(b"x" * length)
            assert (await ended(stream)).startswith(b"HTTP/1.1 413 ")
        assert await found.sample(CUT % "long_heads") == 0
        assert (await found.ask())[0] == 200


async def test_malformed_requests_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        for _ in range(20):
            async with connected(found, 1, b"GET / HTTP/1.1\r\nBad Header\x00: 1\r\n\r\n") as (stream,):
                assert (await ended(stream)).startswith(b"HTTP/1.0 400 ")
        assert await found.sample("finetune_gateway_malformed_requests_total") == 20
    assert len([one for one in caplog.records if "malformed" in one.getMessage()]) == 1
    assert not any(one.exc_info for one in caplog.records)
