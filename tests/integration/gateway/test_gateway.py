"""The gateway between a client and servers that answer, fail and hang."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest
from aiohttp import ClientPayloadError
from openai import APIStatusError

from e2e.cluster.machine.ports import free_ports
from finetune_gateway import bodies, proxy
from finetune_gateway.bodies import LONGEST_BYTES
from tests.integration.gateway.fake_openai import EVENTS, HOST, fake_openai
from tests.integration.gateway.gateways import CHAT, QUESTION, gateway

REQUESTS = 'finetune_gateway_requests_total{code="%s",revision="%s",route="/v1/chat/completions"}'


async def test_an_answer_is_the_servers_and_names_its_revision() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        headers = {"authorization": "Bearer secret", "cookie": "a=b", "x-request-id": "mine"}
        async with found.session.post(found.url + CHAT, json=QUESTION, headers=headers) as response:
            assert response.status == 200
            assert (await response.json())["choices"][0]["message"]["content"] == "by sha256:aa"
            assert response.headers["x-finetune-revision"] == "sha256:aa"
            assert response.headers["x-request-id"] == "mine"
        (seen,) = server.requests
        assert json.loads(seen["body"]) == QUESTION
        sent = {name.lower(): value for name, value in seen["headers"].items()}
        assert not {"authorization", "cookie"} & sent.keys(), "credentials are not the server's"
        assert sent["x-request-id"] == "mine"
        await found.until(REQUESTS % (200, "sha256:aa"), 1)
        assert await found.sample('finetune_gateway_output_tokens_total{revision="sha256:aa"}') == 5


async def test_a_stream_comes_as_it_is_made_and_byte_by_byte() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        async with found.session.post(found.url + CHAT, json={**QUESTION, "stream": True}) as response:
            async with asyncio.timeout(30):
                first = await response.content.readany()
            assert first == EVENTS[0], "before the server makes the second one"
            server.go.set()
            assert first + await response.content.read() == b"".join(EVENTS)
        await found.until('finetune_gateway_time_to_first_token_seconds_count{revision="sha256:aa"}', 1)


async def test_openais_client_reads_answers_streams_and_errors() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        client = found.openai
        answer = await client.chat.completions.create(model="router", messages=[{"role": "user", "content": "a"}])
        assert answer.choices[0].message.content == "by sha256:aa"
        stream = await client.chat.completions.create(
            model="router", messages=[{"role": "user", "content": "a"}], stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two thr\u00e9e"
        server.status = 400
        with pytest.raises(APIStatusError) as refused:
            await client.chat.completions.create(model="router", messages=[{"role": "user", "content": "a"}])
        assert (refused.value.status_code, refused.value.code) == (400, "of_the_server")
        await client.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_request_at_the_server(stream: bool) -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        asking = asyncio.create_task(found.ask(stream=stream))
        await server.came.acquire()
        asking.cancel()
        async with asyncio.timeout(30):
            await server.left.wait()
        await found.until(REQUESTS % (499, "sha256:aa" if stream else ""), 1)
        await found.until("finetune_gateway_requests_in_flight", 0)


async def test_a_server_that_takes_no_connection_is_passed_over() -> None:
    (closed,) = free_ports(1)
    async with fake_openai() as server, gateway([f"http://{HOST}:{closed}", server.url]) as found:
        assert [(await found.ask())[0] for _ in range(4)] == [200] * 4
        assert await found.sample('finetune_gateway_retries_total{cause="connection"}') <= 1, "it is asked last now"


async def test_a_server_that_has_no_room_is_passed_over_and_the_last_one_says_so_itself() -> None:
    async with (
        fake_openai("sha256:aa", status=503) as full,
        fake_openai("sha256:bb") as other,
        gateway([full.url, other.url]) as found,
    ):
        assert [(await found.ask())[0] for _ in range(4)] == [200] * 4
        other.status = 503
        status, answer = await found.ask()
        assert (status, answer["error"]["code"]) == (503, "of_the_server")


async def test_what_a_server_has_begun_to_answer_is_asked_of_no_other() -> None:
    """It may have cost minutes of an accelerator: the client decides."""
    async with fake_openai() as first, fake_openai() as second, gateway([first.url, second.url]) as found:
        first.cuts_after = second.cuts_after = 0
        status, answer = await found.ask()
        assert (status, answer["error"]["code"]) == (502, "bad_gateway")
        assert len(first.requests) + len(second.requests) == 1
        first.cuts_after = second.cuts_after = None
        first.status = second.status = 500
        assert (await found.ask())[0] == 500
        assert len(first.requests) + len(second.requests) == 2


async def test_an_answer_that_breaks_off_is_never_taken_for_complete() -> None:
    async with fake_openai(cuts_after=2) as server, gateway([server.url]) as found:
        async with found.session.post(found.url + CHAT, json={**QUESTION, "stream": True}) as response:
            with pytest.raises((ClientPayloadError, ConnectionResetError)):
                await response.content.read()
        await found.until(REQUESTS % (502, "sha256:aa"), 1)


async def test_no_more_requests_reach_a_server_than_it_may_have_and_no_more_wait_than_may() -> None:
    async with fake_openai() as server, gateway([server.url], in_flight=2, queue=1) as found:
        server.go.clear()
        asked = [asyncio.create_task(found.ask()) for _ in range(3)]
        await found.until("finetune_gateway_requests_queued", 1)
        for _ in range(2):
            await server.came.acquire()
        assert server.came.locked()
        async with found.session.post(found.url + CHAT, json=QUESTION) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
            assert (await refused.json())["error"]["code"] == "queue_full"
        server.go.set()
        assert [(await one)[0] for one in asked] == [200] * 3
        await found.until(REQUESTS % (429, ""), 1)


async def test_requests_wait_for_a_server_to_come() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        found.servers = frozenset()
        await found.until("finetune_gateway_servers", 0)
        asking = asyncio.create_task(found.ask())
        await found.until("finetune_gateway_requests_queued", 1)
        found.servers = frozenset({server.url})
        assert (await asking)[0] == 200


async def test_the_servers_known_last_are_asked_while_nobody_can_tell() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        found.servers = None
        await asyncio.sleep(1.5)  # it has looked once more
        assert (await found.ask())[0] == 200
        assert await found.sample("finetune_gateway_servers") == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("GET", "/health"), ("POST", "/v1/load_lora_adapter"), ("GET", "/v1/models/%2e%2e/x")],
)
async def test_other_routes_reach_no_server(method: str, path: str) -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        reader, writer = await asyncio.open_connection(HOST, int(found.url.rpartition(":")[2]))
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert b"404" in await reader.readline()
        writer.close()
        assert server.requests == []


async def test_a_body_that_is_too_long_or_no_body_is_refused() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        async with found.session.post(found.url + CHAT, data=b"x" * (LONGEST_BYTES + 1)) as response:
            assert response.status == 413
        reader, writer = await asyncio.open_connection(HOST, int(found.url.rpartition(":")[2]))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        writer.write(head + b"no length\r\n")
        assert b"400" in await reader.readline()
        writer.close()
        assert server.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP, identity"])
async def test_a_compressed_body_is_refused_and_never_unpacked(encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    """Megabytes would come out of kilobytes, while everybody else waits; whoever unpacks this one fails."""
    async with fake_openai() as server, gateway([server.url]) as found:
        asked = found.session.post(found.url + CHAT, data=b"not packed", headers={"Content-Encoding": encoding})
        async with asked as answer:
            assert (answer.status, (await answer.json())["error"]["type"]) == (415, "invalid_request_error")
        assert server.requests == []
        assert (await found.ask())[0] == 200
    assert [one for one in caplog.records if one.name.startswith("aiohttp")] == []


async def test_the_bodies_of_those_that_wait_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES_HELD", 1000)
    async with fake_openai() as server, gateway([server.url], in_flight=1, queue=8) as found:
        server.go.clear()
        asked = [asyncio.create_task(found.ask(user="x" * 300)) for _ in range(2)]
        await found.until("finetune_gateway_requests_queued", 1)
        status, refused = await found.ask(user="x" * 300)
        assert (status, refused["error"]["code"]) == (429, "queue_full")
        server.go.set()
        assert [(await one)[0] for one in asked] == [200] * 2
        assert (await found.ask(user="x" * 300))[0] == 200, "what was answered is held no more"


async def test_a_body_that_gave_way_is_refused_even_if_its_end_came_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_BYTES_AT_ONCE", 100)
    async with fake_openai() as server, gateway([server.url]) as found:
        assert (await found.ask(user="x" * 300))[0] == 408
        assert server.requests == []


async def test_a_redirection_is_the_clients_to_follow() -> None:
    async with fake_openai() as other, fake_openai(status=307) as server, gateway([server.url]) as found:
        server.location = other.url + "/inside"
        async with found.session.post(found.url + CHAT, json=QUESTION, allow_redirects=False) as response:
            assert (response.status, response.headers["location"]) == (307, server.location)
        assert other.requests == []


async def test_a_request_in_absolute_form_reaches_the_server_and_no_other() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        reader, writer = await asyncio.open_connection(HOST, int(found.url.rpartition(":")[2]))
        writer.write(b"GET http://example.com:81/v1/models?a=%2F HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()
        assert [seen["path"] for seen in server.requests] == ["/v1/models"]


@pytest.mark.parametrize(("stream", "code", "revision"), [(False, 504, ""), (True, 502, "sha256:aa")])
async def test_a_server_that_falls_silent_is_at_fault(
    monkeypatch: pytest.MonkeyPatch, stream: bool, code: int, revision: str
) -> None:
    monkeypatch.setattr(proxy, "SILENT_SECONDS", 0.5)
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        async with found.session.post(found.url + CHAT, json={**QUESTION, "stream": stream}) as response:
            if stream:
                with pytest.raises((ClientPayloadError, ConnectionResetError)):
                    await response.content.read()
            else:
                assert (response.status, (await response.json())["error"]["code"]) == (504, "timeout")
        await found.until(REQUESTS % (code, revision), 1)


async def test_half_sent_bodies_take_no_place_of_others() -> None:
    async with fake_openai() as server, gateway([server.url], in_flight=1, queue=0) as found:
        half = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode()
        port = int(found.url.rpartition(":")[2])
        writers = [(await asyncio.open_connection(HOST, port))[1] for _ in range(50)]
        for writer in writers:
            writer.write(half)
            await writer.drain()
        assert (await found.ask())[0] == 200
        for writer in writers:
            writer.close()


async def test_after_sigterm_it_completes_what_it_has_begun() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        server.go.clear()
        async with found.session.post(found.url + CHAT, json={**QUESTION, "stream": True}) as response:
            first = await response.content.readany()
            found.stop.set()
            await asyncio.sleep(0.2)
            server.go.set()
            assert first + await response.content.read() == b"".join(EVENTS)


async def test_a_client_that_resets_its_connection_in_the_middle_of_its_body_leaves_nothing() -> None:
    async with fake_openai() as server, gateway([server.url]) as found:
        connection = socket.create_connection((HOST, int(found.url.rpartition(":")[2])))
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.sleep(0.1)
        connection.close()
        await found.until(REQUESTS % (499, ""), 1)
        assert server.requests == []
