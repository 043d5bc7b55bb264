"""Reads request bodies as JSON, with limits of size and time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

FIXED_BYTES = 64 * 1024
BYTES_PER_TOKEN = 16
"""A token of most texts has 3 to 5 bytes; JSON may escape a character of one token with 6."""
MOST_SECONDS = 30.0


CLIENT_LEFT = 499
"""nginx's status of a request whose client did not wait for the answer: nobody reads it, but metrics count it."""


class BodyError(ValueError):
    """The body is rejected. `status`: the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def longest_body(context_length: int) -> int:
    """The maximum body size in bytes of a request whose text fits into the context."""
    return FIXED_BYTES + BYTES_PER_TOKEN * context_length


async def discard(request: Request) -> None:
    """Receive and discard a body: a client does not read the response while it is still sending."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(MOST_SECONDS):
            async for _ in request.stream():
                pass


async def read_json(request: Request, most_bytes: int) -> Any:
    """The JSON value of a body. Raises BodyError.

    A body that is too long is received to its end and discarded: a client does not read a response while it is sending.
    """
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(MOST_SECONDS):
            async for chunk in request.stream():
                received += len(chunk)
                if received <= most_bytes:
                    body += chunk
    except TimeoutError:
        raise BodyError(408, f"The body was not complete within {MOST_SECONDS:g} seconds.") from None
    except ClientDisconnect:
        raise BodyError(CLIENT_LEFT, "The client left before its body was complete.") from None
    if received > most_bytes:
        raise BodyError(
            413, f"The body has {received} bytes; a request that fits into the context has at most {most_bytes}."
        )
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise BodyError(400, f"The body is not JSON: {error}.") from None
