"""Names the model's revision in the head of every answer, so that who stands between can count by it."""

from __future__ import annotations

from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REVISION_HEADER = b"x-finetune-revision"


class NameRevision:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, revision: str) -> None:
        self._app = app
        self._header = (REVISION_HEADER, quote(revision, safe="/:@").encode())  # a URI may hold anything

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), self._header]}
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)
