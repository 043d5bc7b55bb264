"""What an example becomes in training, computed in this process or in several."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import structlog

from finetune_trainer.data.encode.chat_template import TemplateError, reads_images, template_clock
from finetune_trainer.data.encode.dropped_content import names_left_out
from finetune_trainer.data.encode.tokenization import TokenizedExample
from finetune_trainer.data.encode.vision import too_many_image_tokens, with_images
from finetune_trainer.data.images.images import ImageError, ImageStore
from finetune_trainer.data.read.examples import Example
from finetune_trainer.methods.method import FormatError, Method, Row
from finetune_trainer.process import environment

TooLong = Literal["Truncate", "Drop", "Fail"]
Item = TypeVar("Item")

WORTH_BYTES = 32 * 2**20
"""About 15 seconds of one core: a process takes 3 of them to start."""
PROCESS_BYTES = 512 * 2**20
MOST_PROCESSES = 16
EXAMPLES_AT_ONCE = 32
CHUNKS_AHEAD = 2
"""For each process, while this one is busy with others."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class ExampleTokens:
    """What one example becomes."""

    error: str = ""
    """Why it can't be tokenized; then there is nothing else."""
    of_model: bool = False
    """Whether that is the chat template's fault."""
    longest: int = 0
    """The most tokens that one of its sequences has in training; nothing else is said of an example that is dropped."""
    tokens: int = 0
    """Of all its sequences."""
    refusal: str = ""
    """Why nothing can be learned from them."""
    spells_tokens: bool = False
    """Whether a text spells a control token."""
    names_left_out: tuple[str, ...] = ()
    """Roles whose names the chat template leaves out."""
    row_lengths: Sequence[int] = ()
    """Tokens of its rows."""
    rows: Sequence[Row] = ()
    """Those that something is learned from; none where the model reads images."""


@dataclass(frozen=True)
class ExampleTokenizer:
    """Tokenizes examples by a method's rules, in any process that it is pickled for."""

    method: Method
    tokenizer: Any
    max_length: int
    too_long: TooLong
    training: bool
    now: datetime
    """The time that templates print."""

    def __call__(self, example: Example, files: Callable[[], list[Path]] = list) -> ExampleTokens:
        """`files`: gives those of the example's images, or raises ImageError."""
        with template_clock(self.now):
            try:
                sequences = self.method.tokenize(self.tokenizer, example, files())
            except TemplateError as error:
                return ExampleTokens(error=str(error), of_model=True)
            except (FormatError, ImageError) as error:
                return ExampleTokens(error=str(error))
            longest = max(sequence.length for sequence in sequences)
            if self.is_dropped(longest):
                return ExampleTokens(longest=longest)
            return ExampleTokens(
                longest=longest,
                tokens=sum(len(sequence.input_ids) for sequence in sequences),
                refusal=self._refusal(sequences, longest),
                spells_tokens=any(sequence.spells_tokens for sequence in sequences),
                names_left_out=tuple(names_left_out(self.tokenizer, example)),
                row_lengths=self.method.row_lengths(self.tokenizer, sequences, self.max_length),
                rows=self._rows(example, sequences),
            )

    def is_dropped(self, longest: int) -> bool:
        """Whether an example with so many tokens is left out."""
        return longest > self.max_length and self.too_long == "Drop"

    def is_refused(self, longest: int) -> bool:
        """Whether an example with so many tokens ends the run."""
        return longest > self.max_length and self.too_long == "Fail"

    def _refusal(self, sequences: Sequence[TokenizedExample], longest: int) -> str:
        if self.is_refused(longest):
            return f"The example has {longest} tokens; the maximum is {self.max_length} (maxLength)."
        images_end = max(sequence.images_end for sequence in sequences)
        if images_end > self.max_length:
            return too_many_image_tokens(images_end, self.max_length)
        return self.method.refusal(sequences, self.max_length)

    def _rows(self, example: Example, sequences: Sequence[TokenizedExample]) -> list[Row]:
        if reads_images(self.tokenizer) or self.is_refused(max(sequence.length for sequence in sequences)):
            return []
        rows = self.method.to_rows(self.tokenizer, example, sequences, training=self.training)
        return [row for row in rows if self.method.is_learned_from(row, self.max_length)]


def tokenizing_processes(size: int, cpus: int, memory: int) -> int:
    """How many processes tokenize files of `size` bytes in all; 1: only this one. `memory`: the bytes that are free."""
    if size < WORTH_BYTES:
        return 1
    return max(1, min(cpus, memory // PROCESS_BYTES, MOST_PROCESSES))


def tokenize_each(
    items: Iterable[Item],
    example_of: Callable[[Item], Example],
    tokenize: ExampleTokenizer,
    images: ImageStore,
    processes: int,
) -> Iterator[tuple[Item, ExampleTokens]]:
    """Items, and what the example of each becomes, in their order."""
    if processes > 1 and not reads_images(tokenize.tokenizer) and (pickled := _pickled(tokenize)) is not None:
        yield from _Processes(tokenize, pickled, processes).each(items, example_of)
        return
    for item, files in with_images(tokenize.tokenizer, images, items, example_of):
        yield item, tokenize(example_of(item), files)


def _pickled(tokenize: ExampleTokenizer) -> bytes | None:
    """None of a tokenizer that can't be pickled: it stays in this process."""
    try:
        return pickle.dumps(tokenize)
    except Exception:
        return None


@dataclass
class _Processes:
    """Chunks of examples are tokenized in processes.

    A chunk that fails there, in whatever way, is tokenized once more in this process: what is wrong with it shows here.
    When a process dies, all of them end, and this one does the rest.
    """

    tokenize: ExampleTokenizer
    pickled: bytes
    count: int
    broken: bool = False
    waiting: deque[tuple[list[Any], Future[list[ExampleTokens] | None] | None]] = field(default_factory=deque)

    def each(
        self, items: Iterable[Item], example_of: Callable[[Item], Example]
    ) -> Iterator[tuple[Item, ExampleTokens]]:
        pool = ProcessPoolExecutor(
            self.count,
            # A fork would copy the locks of this process's threads as they are.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self.pickled,),
        )
        source = iter(items)
        try:
            while chunk := list(itertools.islice(source, EXAMPLES_AT_ONCE)):
                self.waiting.append((chunk, self._submit(pool, [example_of(item) for item in chunk])))
                if len(self.waiting) > CHUNKS_AHEAD * self.count:
                    yield from self._next(example_of)
            while self.waiting:
                yield from self._next(example_of)
        finally:
            pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ProcessPoolExecutor, examples: list[Example]) -> Future[list[ExampleTokens] | None] | None:
        try:
            return None if self.broken else pool.submit(_tokenize_chunk, examples)
        except BrokenExecutor:
            self._note_broken()
            return None

    def _next(self, example_of: Callable[[Item], Example]) -> Iterator[tuple[Item, ExampleTokens]]:
        chunk, future = self.waiting.popleft()
        try:
            found = None if future is None else future.result()
        except BrokenExecutor:
            self._note_broken()
            found = None
        if found is None:
            return ((item, self.tokenize(example_of(item))) for item in chunk)
        return zip(chunk, found, strict=True)

    def _note_broken(self) -> None:
        if not self.broken:
            _log.warning("a process that tokenized has ended: the rest is tokenized in one process")
        self.broken = True


_begun: list[ExampleTokenizer] = []
"""That of a process of _Processes."""


def _begin(pickled: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a laptop is for the process that started this one
    environment.hide_torch()  # tokenizers need none
    _begun.append(pickle.loads(pickled))  # noqa: S301 (from the process that started this one)


def _tokenize_chunk(examples: list[Example]) -> list[ExampleTokens] | None:
    """None: its caller repeats it, and sees the exception."""
    try:
        return [_compact(_begun[0](example)) for example in examples]
    except Exception:
        return None


def _compact(found: ExampleTokens) -> ExampleTokens:
    """Token ids as arrays: lists take nine times the memory, and longer to pickle."""
    rows = [
        {name: value if isinstance(value, str) else np.array(value, dtype=np.int32) for name, value in row.items()}
        for row in found.rows
    ]
    return replace(found, rows=rows)
