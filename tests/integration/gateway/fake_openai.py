"""A server of OpenAI's routes that answers, fails and hangs as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from e2e.cluster.machine.ports import free_ports

HOST = "127.0.0.1"


@dataclass
class Fake:
    """One server. `revision`: of its model, in each answer; `stop`: what takes it off its port."""

    revision: str
    port: int
    status: int = 200
    """Of its answers; not 200: with OpenAI's error object."""
    cuts_after: int | None = None
    """It ends the connection after so many events of a stream; 0: before the head of its answer."""
    location: str | None = None
    """Where its answers that are not 200 lead."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream goes on after its first event, and an answer comes at all, once this is set."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """What came: its path, headers and body."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client leaves."""
    came: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append({"path": request.path, "headers": dict(request.headers), "body": body})
        self.came.release()
        headers = {"x-finetune-revision": self.revision}
        if self.cuts_after == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.status != 200:
            error = {"error": {"message": "not now", "type": "server_error", "param": None, "code": "of_the_server"}}
            leads = {"location": self.location} if self.location else {}
            return web.json_response(error, status=self.status, headers={**headers, **leads})
        try:
            if body and json.loads(body).get("stream"):
                return await self._stream(request, headers)
            await self.go.wait()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        message = {"role": "assistant", "content": f"by {self.revision}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "router"}
        return web.json_response({**whole, "choices": [choice], "usage": usage}, headers=headers)

    async def _stream(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(EVENTS):
            if number == self.cuts_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(event)
            await self.go.wait()
        return response


def event(text: str) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "router"}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


EVENTS = [event("one"), event(" two"), event(" thr\u00e9e"), b"data: [DONE]\n\n"]


@asynccontextmanager
async def fake_openai(revision: str = "sha256:aa", **behaviour: Any) -> AsyncIterator[Fake]:
    """A server that answers at once, unless `behaviour` says otherwise."""
    (port,) = free_ports(1)
    fake = Fake(revision, port, **behaviour)
    fake.go.set()
    app = web.Application(client_max_size=32 * 2**20)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield fake
    finally:
        await runner.cleanup()
