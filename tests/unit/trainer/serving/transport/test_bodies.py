"""What the bodies that are being received may take together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from finetune_trainer.serving.transport.bodies import Bodies, BodyError


class Sender:
    """A request whose body comes as the test sends it."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.taken = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        while (chunk := await self.chunks.get()) is not None:
            yield chunk
            self.taken.set()

    def send(self, *chunks: bytes | None) -> None:
        for chunk in chunks:
            self.chunks.put_nowait(chunk)


async def begun(bodies: Bodies, request: Any, chunk: bytes) -> asyncio.Task[bytes]:
    reading = asyncio.create_task(bodies.read(request))
    request.send(chunk)
    await request.taken.wait()
    return reading


async def test_the_body_that_has_been_coming_for_the_longest_gives_way() -> None:
    bodies, slow, other, quick = Bodies(10, most_at_once=20), Sender(), Sender(), Sender()
    first = await begun(bodies, slow, b"a" * 9)
    second = await begun(bodies, other, b"b" * 9)
    third = await begun(bodies, quick, b"c" * 9)
    with pytest.raises(BodyError, match="took the longest of many") as refused:
        await first
    assert refused.value.status == 408
    other.send(None)
    quick.send(b"c", None)
    assert (await second, await third) == (b"b" * 9, b"c" * 10)


async def test_what_gave_way_is_not_read_even_if_its_end_is_there_already() -> None:
    bodies, slow, quick = Bodies(10, most_at_once=15), Sender(), Sender()
    first = await begun(bodies, slow, b"a" * 9)
    second = await begun(bodies, quick, b"b" * 9)
    slow.send(b"a", None)
    with pytest.raises(BodyError):
        await first
    quick.send(None)
    assert await second == b"b" * 9


async def test_a_body_that_came_leaves_room() -> None:
    bodies = Bodies(10, most_at_once=10)
    for _ in range(3):
        sender: Any = Sender()
        sender.send(b"a" * 10, None)
        assert await bodies.read(sender) == b"a" * 10


async def test_one_that_is_too_long_takes_no_more_than_the_longest() -> None:
    bodies, sender = Bodies(10, most_at_once=10), Sender()
    request: Any = sender
    sender.send(b"a" * 8, b"a" * 8, None)
    with pytest.raises(BodyError, match=r"16 bytes; .* at most 10") as refused:
        await bodies.read(request)
    assert refused.value.status == 413
