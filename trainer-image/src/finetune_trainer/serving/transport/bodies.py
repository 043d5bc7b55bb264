"""Reads request bodies, with limits of size, time, and of what all of them together take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

FIXED_BYTES = 64 * 1024
BYTES_PER_TOKEN = 16
"""A token of most texts has 3 to 5 bytes; JSON may escape a character of one token with 6."""
MOST_SECONDS = 30.0
MOST_BYTES_AT_ONCE = 64 * 2**20
"""Of all bodies that are not complete, unless four of the longest take more."""
LONGEST_AT_ONCE = 4


CLIENT_LEFT = 499
"""nginx's status of a request whose client did not wait for the answer: no client reads it, but metrics count it."""


class BodyError(ValueError):
    """The body is rejected. `status`: the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def longest_body(context_length: int) -> int:
    """The maximum body size in bytes of a request whose text fits into the context."""
    return FIXED_BYTES + BYTES_PER_TOKEN * context_length


@dataclass(eq=False)
class _Reading:
    """A body that is not complete."""

    deadline: asyncio.Timeout
    received: bytearray = field(default_factory=bytearray)
    gave_way: bool = False


class Bodies:
    """The bodies that are being received. `longest`: in bytes.

    They take no place of those for requests, so that a client that sends slowly, or never ends, keeps no other waiting.
    What they take of memory is bounded: beyond that, the one that has been coming for the longest gives way.
    """

    def __init__(self, longest: int, most_at_once: int | None = None) -> None:
        self._longest = longest
        self._most_at_once = most_at_once or max(MOST_BYTES_AT_ONCE, LONGEST_AT_ONCE * longest)
        self._readings: dict[_Reading, None] = {}
        """Oldest first."""

    async def read(self, request: Request) -> bytes:
        """A whole body. Raises BodyError.

        One that is too long is received to its end and discarded: a client reads no response while it is sending.
        """
        size = 0
        try:
            async with asyncio.timeout(MOST_SECONDS) as deadline:
                reading = _Reading(deadline)
                self._readings[reading] = None
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= self._longest and not reading.gave_way:
                        reading.received += chunk
                        self._make_room()
        except TimeoutError:
            if not reading.gave_way:
                raise BodyError(408, f"The body was not complete within {MOST_SECONDS:g} seconds.") from None
        except ClientDisconnect:
            raise BodyError(CLIENT_LEFT, "The client left before its body was complete.") from None
        finally:
            self._readings.pop(reading, None)
        if reading.gave_way:
            message = "The body took the longest of many that are being sent to this server. Try again later."
            raise BodyError(408, message)
        if size > self._longest:
            raise BodyError(
                413, f"The body has {size} bytes; a request that fits into the context has at most {self._longest}."
            )
        return bytes(reading.received)

    def _make_room(self) -> None:
        while sum(len(reading.received) for reading in self._readings) > self._most_at_once:
            slowest = next(iter(self._readings))
            del self._readings[slowest]
            slowest.gave_way = True
            slowest.received.clear()
            slowest.deadline.reschedule(asyncio.get_running_loop().time())


def to_json(body: bytes) -> Any:
    """The JSON value of a body. Raises BodyError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyError(400, f"The body is not JSON: {error}.") from None
