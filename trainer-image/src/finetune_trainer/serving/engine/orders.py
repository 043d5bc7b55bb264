"""What the engine is asked for, and how its output reaches the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from finetune_trainer.serving.engine.constraints import Constraint

FinishReason = Literal["stop", "length"]


class EngineBusyError(RuntimeError):
    """Too many requests are queued."""


class GenerationError(RuntimeError):
    """The model could not generate; the message says why."""


class CancelledRequestError(GenerationError):
    """The client has left."""


class UnfollowableSchemaError(GenerationError):
    """The schema of the request can't be followed any further: the same request would fail again."""


@dataclass(frozen=True)
class Order:
    """A request for one output. A sampling parameter of None means the model's own.

    `prompt`: token ids, at least one and fewer than the context length.
    """

    prompt: list[int]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    marks: str = ""
    """Text with the special tokens that delimit texts: stop strings do not match across these, but across others."""
    alternatives: int | None = None
    """How many of the most likely tokens to report beside each token; None: no log probabilities at all."""
    constraint: Constraint | None = None
    """What the output has to match; of this order alone."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, and the log probability that the model itself gave it, whatever the sampling parameters."""

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...] = ()
    """The most likely tokens at its place, the likeliest first; these have no alternatives themselves."""


@dataclass(frozen=True)
class Text:
    """A piece of an output. `special`: a special token, which is not shown."""

    text: str
    special: bool = False
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens that this piece completes, if they were asked for."""


@dataclass(frozen=True)
class End:
    """The end of an output. `tokens`: the number of generated tokens, including those of the stop string."""

    reason: FinishReason
    tokens: int


Piece = Text | End


class Generation:
    """The outputs of one request; passes their pieces from the engine's thread to the event loop."""

    def __init__(self, outputs: int, loop: asyncio.AbstractEventLoop) -> None:
        self._outputs = outputs
        self._loop = loop
        self._pieces: asyncio.Queue[tuple[int, Piece | GenerationError]] = asyncio.Queue()
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Cancel the request: its outputs end at the next token, and its place is free."""
        self._cancelled.set()

    def put(self, output: int, piece: Piece | GenerationError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (output, piece))
        except RuntimeError:  # The loop is closed: the server is shutting down.
            self.cancel()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces, each with the number of its output; the last piece of an output is its End.

        Raises GenerationError, and cancels the other outputs.
        """
        open_outputs = self._outputs
        while open_outputs:
            output, piece = await self._pieces.get()
            if isinstance(piece, GenerationError):
                self.cancel()
                raise piece
            yield output, piece
            open_outputs -= isinstance(piece, End)
