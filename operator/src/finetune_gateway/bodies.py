"""Reads request bodies, with limits of size, time, and of what all of them together take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from finetune_gateway.errors import RefusedError

LONGEST_BYTES = 16 * 2**20
"""The servers have limits of their own, by the model's context."""
MOST_BYTES_AT_ONCE = 64 * 2**20
MOST_BYTES_HELD = 128 * 2**20
"""Of all bodies that are complete, until their answers are: a gateway's Pod has 512 MiB."""
MOST_SECONDS = 30.0


@dataclass(eq=False)
class _Reading:
    """A body that is not complete."""

    deadline: asyncio.Timeout
    received: bytearray = field(default_factory=bytearray)
    gave_way: bool = False


class Bodies:
    """The bodies that are being received: one that never ends takes no place at a server, and no memory for long.

    Beyond MOST_BYTES_AT_ONCE, the one that has been coming for the longest gives way.
    """

    def __init__(self) -> None:
        self._readings: dict[_Reading, None] = {}
        """Oldest first."""
        self._held = 0

    @asynccontextmanager
    async def held(self, request: web.Request) -> AsyncIterator[bytes]:
        """A whole body, as long as it may be needed once more. Raises RefusedError."""
        body = await self._read(request)
        if self._held + len(body) > MOST_BYTES_HELD:
            message = "The requests that are being answered, or wait, have too many bytes. Try again later."
            raise RefusedError(429, message, "queue_full")
        self._held += len(body)
        try:
            yield body
        finally:
            self._held -= len(body)

    async def _read(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RefusedError(415, "The body is compressed. Send it as it is, without Content-Encoding.")
        if (request.content_length or 0) > LONGEST_BYTES:
            raise _too_long()
        reading = _Reading(asyncio.timeout(MOST_SECONDS))
        try:
            async with reading.deadline:
                self._readings[reading] = None
                async for chunk in request.content.iter_any():
                    reading.received += chunk
                    if len(reading.received) > LONGEST_BYTES:
                        raise _too_long()
                    self._make_room()
            if reading.gave_way:  # Its end came before the deadline was noticed.
                raise _gave_way()
        except TimeoutError:
            if reading.gave_way:
                raise _gave_way() from None
            raise RefusedError(408, f"The body was not complete within {MOST_SECONDS:g} seconds.") from None
        finally:
            self._readings.pop(reading, None)
        return bytes(reading.received)

    def _make_room(self) -> None:
        while sum(len(reading.received) for reading in self._readings) > MOST_BYTES_AT_ONCE:
            slowest = next(iter(self._readings))
            del self._readings[slowest]
            slowest.gave_way = True
            slowest.received.clear()
            slowest.deadline.reschedule(asyncio.get_running_loop().time())


def _gave_way() -> RefusedError:
    return RefusedError(408, "The body took the longest of many that are being sent. Try again later.")


def _too_long() -> RefusedError:
    return RefusedError(413, f"The body has more than {LONGEST_BYTES} bytes.")
