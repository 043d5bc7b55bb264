"""A server whose streams have an event every hundredth of a second, which says when it was written."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiohttp import web

EVENTS_PER_SECOND = 100
_PADDING = "x" * 160


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def _stream(request: web.Request) -> web.StreamResponse:
    events = (await request.json())["events"]
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "x-finetune-revision": "sha256:benchmark"}
    )
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    next_one = loop.time()
    for _ in range(events):
        text = json.dumps({"written": time.monotonic_ns(), "choices": [{"delta": {"content": _PADDING}}]})
        await response.write(b"data: " + text.encode() + b"\n\n")
        next_one += 1 / EVENTS_PER_SECOND
        await asyncio.sleep(max(0.0, next_one - loop.time()))
    await response.write(b"data: [DONE]\n\n")
    return response


def main() -> None:
    """Serve at the port of the first argument, until told to stop."""
    app = web.Application()
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _stream)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
