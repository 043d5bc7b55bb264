"""Generates in a thread: requests join the batch between two tokens, as soon as the memory has room for them.

A request ends at one of the model's end tokens, at a stop string, at its token limit, at the end of the context, or
when its client leaves. When a batch fails, its rows go on one by one, so that only the one that is at fault fails.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import structlog
import torch
from transformers import GenerationConfig

from finetune_trainer.generate.generation import Generator
from finetune_trainer.process.failures import first_line
from finetune_trainer.serving.engine.batch import Batch
from finetune_trainer.serving.engine.capacity import Capacity
from finetune_trainer.serving.engine.constraints import Constraints
from finetune_trainer.serving.engine.orders import EngineBusyError, Generation, GenerationError, Order
from finetune_trainer.serving.engine.rows import Row, Vocabulary

MOST_WAITING = 64
"""The maximum number of queued outputs, in addition to those in the batch; more are rejected."""
STUCK_SECONDS = 120.0
"""If no module of the model is called for this long during a request, the accelerator hangs."""
GROW_AGAIN_SECONDS = 300.0
"""After a batch that the memory did not suffice for, its room is doubled each time this has passed, up to the first."""

_log = structlog.get_logger()


class Engine:
    """Generates in a thread; one engine per process. It chooses the tokens itself: the model's config has no rules."""

    def __init__(self, generator: Generator, capacity: Capacity | None = None) -> None:
        """`capacity`: of a batch; None: as much as the memory beside the model allows."""
        self._model = generator.model
        self._config = generator.model.generation_config
        self._context_length = generator.context_length
        self._vocabulary = Vocabulary.of(generator.tokenizer, self._config)
        self.constraints = Constraints(generator.tokenizer, self._vocabulary.ends)
        self.lost: str | None = None
        """Why the device is unusable in this process: only a new process can use it again."""
        self._model.generation_config = GenerationConfig(pad_token_id=self._vocabulary.padding)
        self._most = self._capacity = capacity or Capacity.of(self._model)
        self._changed = 0.0
        """When the capacity changed last."""
        self._batch = Batch(self._model, self._vocabulary.padding)
        self._waiting: deque[Row] = deque()
        self._change = threading.Condition()
        self._beat: float | None = None
        for module in self._model.modules():
            module.register_forward_pre_hook(self._on_module)
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    @property
    def is_stuck(self) -> bool:
        """Whether a request is in progress but the model has not run for STUCK_SECONDS."""
        beat = self._beat
        return beat is not None and time.monotonic() - beat > STUCK_SECONDS

    @property
    def waiting(self) -> int:
        """The number of queued outputs."""
        with self._change:
            return sum(not row.is_cancelled for row in self._waiting)

    @property
    def running(self) -> int:
        """The number of outputs in generation."""
        return sum(not row.ended for row in self._batch.rows)

    def submit(self, orders: Sequence[Order]) -> Generation:
        """Queue a request with an output for each order: all of them, or none. Raises EngineBusyError."""
        generation = Generation(len(orders), asyncio.get_running_loop())
        rows = [self._row(generation, number, order) for number, order in enumerate(orders)]
        with self._change:
            self._forget_cancelled()
            if len(self._waiting) + len(rows) > MOST_WAITING:
                raise EngineBusyError
            self._waiting.extend(rows)
            self._change.notify()
        return generation

    def _row(self, generation: Generation, output: int, order: Order) -> Row:
        return Row(generation, output, order, self._config, self._vocabulary, self._context_length, self._model.device)

    def _forget_cancelled(self) -> None:
        """Answer and drop what waits and was cancelled: its place is free."""
        for row in self._waiting:
            if row.is_cancelled:
                row.cancel()
        self._waiting = deque(row for row in self._waiting if not row.ended)

    def _on_module(self, *_: Any) -> None:
        if self._beat is not None:
            self._beat = time.monotonic()

    def _run(self) -> None:
        while True:
            new = self._joining()
            self._beat = time.monotonic()
            failed: Exception | None = None
            try:
                self._batch.run(new, self._someone_can_join)
            except Exception as error:
                failed = _without_frames(error)
            if failed is not None:  # after the block: while an error is handled, its frames hold the batch's cache
                self._go_on_one_by_one(failed)
            self._beat = None

    def _joining(self) -> list[Row]:
        """The queued rows for which there is room; waits for one if the batch is empty."""
        new: list[Row] = []
        with self._change:
            self._grow_again()
            self._forget_cancelled()
            while not self._waiting and not self._batch.rows:
                self._change.wait()
                self._forget_cancelled()
            while self._waiting and self._capacity.fits(self._batch.rows, new, self._waiting[0]):
                new.append(self._waiting.popleft())
        return new

    def _someone_can_join(self) -> bool:
        with self._change:
            live = [row for row in self._batch.rows if not row.ended]
            return bool(self._waiting) and self._capacity.fits(live, [], self._waiting[0])

    def _go_on_one_by_one(self, error: Exception) -> None:
        rows = self._batch.abandon()
        _log.error(f"a batch of {len(rows)} failed: {first_line(error)}")
        if isinstance(error, torch.OutOfMemoryError):
            if len(rows) > 1:  # one alone always fits: a smaller batch would not help it
                self._capacity, self._changed = self._capacity.halved(len(rows)), time.monotonic()
            self._free_memory()
        for row in rows:
            if row.is_cancelled:
                row.cancel()
            elif len(rows) > 1 and self.lost is None:
                self._alone(row)
            else:
                self._fail(row, error)

    def _grow_again(self) -> None:
        if self._capacity != self._most and time.monotonic() - self._changed >= GROW_AGAIN_SECONDS:
            self._capacity, self._changed = self._capacity.doubled(self._most), time.monotonic()

    def _alone(self, row: Row) -> None:
        try:
            while not row.ended:
                self._beat = time.monotonic()
                self._batch.run([row] if not self._batch.rows else [], lambda: False)
        except Exception as error:
            self._batch.abandon()
            self._fail(row, error)

    def _fail(self, row: Row, error: Exception) -> None:
        self.lost = self.lost or _why_lost(self._model.device)
        _log.error(f"a generation failed: {first_line(error)}")
        row.fail(GenerationError(first_line(error)))

    def _free_memory(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()


def _without_frames(error: Exception) -> Exception:
    """The error alone: the frames that it and its causes went through hold tensors."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _why_lost(device: torch.device) -> str | None:
    """The error of a trivial computation if the device is lost: after a kernel fault, every CUDA call fails."""
    try:
        torch.ones(8, device=device).sum().item()
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:
        return first_line(error)
    return None
