"""A request is counted by how it ended, not only by the status that it began with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_trainer.serving.metrics import CountRequests, ServingMetrics, count_as

ROUTE = "/v1/chat/completions"


async def counted(app: ASGIApp, *, leaves: bool = False) -> str:
    """The code that a request of the app is counted with. `leaves`: its client does so before anything is sent."""
    metrics = ServingMetrics(lambda: 0, lambda: 0)
    sent: list[Message] = []

    async def receive() -> Message:
        over = leaves or (sent and not sent[-1].get("more_body", False) and sent[-1]["type"] == "http.response.body")
        return {"type": "http.disconnect"} if over else {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "path": ROUTE, "method": "POST", "headers": [], "asgi": {"spec_version": "2.4"}}
    await CountRequests(app, metrics)(scope, receive, send)
    (line,) = [
        line
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("finetune_serving_requests_total{")
    ]
    return line.partition('code="')[2].partition('"')[0]


async def stream(scope: Scope, *, breaks: bool) -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    if breaks:
        count_as(scope, 503)


@pytest.mark.parametrize(("breaks", "code"), [(False, "200"), (True, "503")])
async def test_a_stream_that_breaks_counts_as_failed(breaks: bool, code: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(stream(scope, breaks=breaks))(scope, receive, send)

    assert await counted(app) == code


@pytest.mark.parametrize(("leaves", "code"), [(False, "503"), (True, "499")])
async def test_a_client_that_leaves_does_not_count_as_a_failure_of_the_server(leaves: bool, code: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await JSONResponse({}, 503)(scope, receive, send)

    assert await counted(app, leaves=leaves) == code


async def test_a_connection_that_closes_after_the_answer_is_no_client_that_left() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({})(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"

    assert await counted(app) == "200"
