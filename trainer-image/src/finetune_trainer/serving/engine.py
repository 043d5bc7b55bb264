"""Generation for a server: one request after another in one thread, streaming text as soon as it is final.

A request ends at one of the model's end tokens, at a stop string, at its token limit or at the end of the context.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from queue import Queue
from typing import Any, Literal

import structlog
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from finetune_trainer.generate.generation import Generator
from finetune_trainer.process.failures import first_line
from finetune_trainer.serving.stop_strings import StopStrings
from finetune_trainer.serving.text_decoder import TextDecoder

MOST_WAITING = 64
"""The maximum number of queued requests, which are processed one after another; more are rejected."""
STUCK_SECONDS = 120.0
"""If no module of the model is called for this long during a request, the accelerator hangs."""
DEFAULT_NEW_TOKENS = 1024

FinishReason = Literal["stop", "length"]

_log = structlog.get_logger()


class EngineBusyError(RuntimeError):
    """Too many requests are queued."""


class GenerationError(RuntimeError):
    """The model could not generate; the message says why."""


@dataclass(frozen=True)
class Order:
    """A generation request. A sampling parameter of None means the model's own.

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


@dataclass(frozen=True)
class Text:
    """A piece of the output. `special`: a special token, which is not shown."""

    text: str
    special: bool = False


@dataclass(frozen=True)
class End:
    """The end of the output. `tokens`: the number of generated tokens, including those of the stop string."""

    reason: FinishReason
    tokens: int


class Engine:
    """Generates in a thread; one engine per process."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._special = _special_tokens(generator.tokenizer)
        self._orders: Queue[_Generation] = Queue()
        self._beat: float | None = None
        self.lost: str | None = None
        """Why the device is unusable in this process: only a new process can use it again."""
        for module in generator.model.modules():
            module.register_forward_pre_hook(self._on_module)
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    @property
    def is_stuck(self) -> bool:
        """Whether a request is in progress but the model has not run for STUCK_SECONDS."""
        beat = self._beat
        return beat is not None and time.monotonic() - beat > STUCK_SECONDS

    @property
    def waiting(self) -> int:
        """The number of queued requests."""
        return self._orders.qsize()

    def submit(self, order: Order) -> _Generation:
        """Queue a request. Raises EngineBusyError."""
        if self.waiting >= MOST_WAITING:
            raise EngineBusyError
        generation = _Generation(order, asyncio.get_running_loop())
        self._orders.put(generation)
        return generation

    def _on_module(self, *_: Any) -> None:
        if self._beat is not None:
            self._beat = time.monotonic()

    def _run(self) -> None:
        while True:
            generation = self._orders.get()
            if generation.is_cancelled:
                generation.put(_CANCELLED)
                continue
            self._beat = time.monotonic()
            try:
                generation.put(self._generate(generation))
            except _CancelledError:
                generation.put(_CANCELLED)
            except Exception as error:
                _log.error(f"a generation failed: {first_line(error)}")
                generation.put(GenerationError(first_line(error)))
                self.lost = _why_lost(self._generator.model.device)
            finally:
                self._beat = None

    def _generate(self, generation: _Generation) -> End:
        model, order = self._generator.model, generation.order
        streamer = _Streamer(generation, self._generator.tokenizer, self._special)
        config = generation_config(model.generation_config, order, self._generator.context_length)
        penalties = _Penalties(len(order.prompt), order.frequency_penalty, order.presence_penalty)
        prompt = torch.tensor([order.prompt], device=model.device)
        with torch.random.fork_rng(enabled=order.seed is not None):
            if order.seed is not None:
                torch.manual_seed(order.seed)
            try:
                sequences = model.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([penalties] if penalties else []),
                    streamer=streamer,
                )
            except _StoppedError:
                return End("stop", streamer.tokens)
        ended = int(sequences[0, -1]) in _as_set(config.eos_token_id)
        return End("stop" if ended else "length", streamer.tokens)


def generation_config(of_model: GenerationConfig, order: Order, context_length: int) -> GenerationConfig:
    """The model's config with the request's settings; the new tokens are limited by the rest of the context."""
    config = copy.deepcopy(of_model)
    room = context_length - len(order.prompt)
    config.max_new_tokens = min(order.max_tokens or DEFAULT_NEW_TOKENS, room)
    if order.top_p is not None:
        config.top_p, config.do_sample = order.top_p, True
    if order.temperature is not None:
        config.do_sample = order.temperature > 0
        if config.do_sample:
            config.temperature = order.temperature
    return config


class _Generation:
    """One request in the engine; passes its pieces from the engine's thread to the event loop."""

    def __init__(self, order: Order, loop: asyncio.AbstractEventLoop) -> None:
        self.order = order
        self._loop = loop
        self._pieces: asyncio.Queue[Text | End | GenerationError] = asyncio.Queue()
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Cancel the request: generation ends at the next token."""
        self._cancelled.set()

    def put(self, piece: Text | End | GenerationError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # The loop is closed: the server is shutting down.
            self.cancel()

    async def pieces(self) -> AsyncIterator[Text | End]:
        """The output; the last piece is its End. Raises GenerationError."""
        while True:
            piece = await self._pieces.get()
            if isinstance(piece, GenerationError):
                raise piece
            yield piece
            if isinstance(piece, End):
                return


class _CancelledError(Exception):
    """Ends `generate`: the client has disconnected."""


_CANCELLED = GenerationError("the request was cancelled")


class _StoppedError(Exception):
    """Ends `generate`: a stop string was found."""


class _Streamer:
    """The streamer that `generate` calls with each token."""

    def __init__(self, generation: _Generation, tokenizer: Any, special: frozenset[int]) -> None:
        self.tokens = 0
        self._generation = generation
        self._backend = tokenizer._tokenizer
        self._special = special
        self._decoder = TextDecoder(self._backend)
        self._stop = StopStrings(generation.order.stop)
        self._characters = 0
        self._shown = 0
        self._unshown: deque[tuple[int, str]] = deque()
        """Special tokens, each with the number of characters of the output before it."""
        self._prompt_is_over = False

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt first, and then with each token. Raises _CancelledError and _StoppedError."""
        if self._generation.is_cancelled:
            raise _CancelledError
        if not self._prompt_is_over:
            self._prompt_is_over = True
            return
        for token in value.tolist():
            self.tokens += 1
            if token in self._special:
                mark = self._backend.id_to_token(token)
                if mark in self._generation.order.marks:
                    self.end()
                self._unshown.append((self._characters, mark))
                self._show("")
            else:
                self._read(self._decoder.step(token))

    def end(self) -> None:
        """Called after the last token of the output, or of a text. Raises _StoppedError."""
        self._read(self._decoder.flush())
        self._show(self._stop.flush())

    def _read(self, text: str) -> None:
        self._characters += len(text)
        shown, stopped = self._stop.feed(text)
        self._show(shown)
        if stopped:
            raise _StoppedError

    def _show(self, text: str) -> None:
        """Emit the next final text, with the special tokens up to its end."""
        while self._unshown and self._unshown[0][0] <= self._shown + len(text):
            position, mark = self._unshown.popleft()
            before, text = text[: position - self._shown], text[position - self._shown :]
            self._put(before)
            self._put(mark, special=True)
            self._shown = position
        self._put(text)
        self._shown += len(text)

    def _put(self, text: str, *, special: bool = False) -> None:
        if text:
            self._generation.put(Text(text, special))


class _Penalties(LogitsProcessor):
    """OpenAI's frequency and presence penalties, computed from the output only, not from the prompt.

    https://platform.openai.com/docs/api-reference/chat/create
    """

    def __init__(self, prompt_tokens: int, frequency: float, presence: float) -> None:
        self._prompt_tokens = prompt_tokens
        self._frequency = frequency
        self._presence = presence

    def __bool__(self) -> bool:
        return bool(self._frequency or self._presence)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.bincount(input_ids[0, self._prompt_tokens :], minlength=scores.shape[-1])[: scores.shape[-1]]
        return scores - self._frequency * counts - self._presence * (counts > 0)


def _why_lost(device: torch.device) -> str | None:
    """The error of a trivial computation if the device is lost: after a kernel fault, every CUDA call fails."""
    try:
        torch.ones(8, device=device).sum().item()
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:
        return first_line(error)
    return None


def _special_tokens(tokenizer: Any) -> frozenset[int]:
    marked = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
    return frozenset([*marked, *tokenizer.all_special_ids])


def _as_set(tokens: int | list[int] | None) -> frozenset[int]:
    return frozenset([tokens] if isinstance(tokens, int) else tokens or ())
