"""Saves in a background thread.

Training stalls only while its state is copied to host memory; a thread uploads and commits it. There is one save at a
time: a save that takes longer than the interval to the next one makes training wait, so that there is never more than
one copy of the state in memory, and never more than one interval of steps to lose. The stalls are measured.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.checkpoint.training_state import Snapshot, SnapshotTaker, Training
from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.progress_log import log_progress

UNNOTICED_SECONDS = 1.0
ABANDONED_SECONDS = 30.0
SWITCH_SECONDS = 0.0005
"""Training needs the interpreter lock after each tensor operation: the default 5 ms of an uploading thread add up."""


@dataclass(frozen=True)
class Save:
    """A save in progress: how long it stalled training, and how much of that was waiting for the previous save."""

    step: int
    snapshot: Snapshot
    began: float
    waited_seconds: float
    stalled_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


class BackgroundSaves:
    """Takes snapshots of a training and hands each to `store`, which runs in a thread.

    What `store` raises is raised by the next `save` or `finish`, and shows in `failed` before. `on_stall` gets the
    seconds for which each save stalled training.
    """

    def __init__(
        self,
        snapshots: SnapshotTaker,
        store: Callable[[Save], None],
        on_stall: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._snapshots = snapshots
        self._store = store
        self._on_stall = on_stall
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether a save has failed whose exception was not raised yet."""
        return self._failure is not None

    @property
    def under_way(self) -> bool:
        """Whether a save is being stored."""
        return self._thread is not None and self._thread.is_alive()

    def prepare(self, training: Training) -> None:
        """Start to allocate the memory for saves, after the first step; otherwise the first save would wait for it."""
        self._snapshots.prepare(training)

    def save(self, training: Training) -> None:
        """Start to save the current state, once the previous save is done."""
        began = time.monotonic()
        self.finish()
        waited = time.monotonic() - began
        self._step = training.state.global_step
        snapshot = self._snapshots.take(training)
        save = Save(self._step, snapshot, began, waited, stalled_seconds=time.monotonic() - began)
        self._on_stall(save.stalled_seconds)
        self._thread = threading.Thread(target=self._run, args=[save], name=f"save-{self._step}", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until no save is in progress. Raises what made one fail."""
        if self._thread is not None:
            heartbeats.beat(Phase.SAVING, self._step)
            self._thread.join(UNNOTICED_SECONDS)
            if self.under_way:
                with log_progress(f"waiting for the checkpoint of step {self._step}"):
                    self._thread.join()
        self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def abandon(self) -> None:
        """After a failure of training: wait up to ABANDONED_SECONDS for a save in progress, and ignore how it ends."""
        if self._thread is not None:
            self._thread.join(ABANDONED_SECONDS)

    def _run(self, save: Save) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            self._store(save)
        except Exception as error:  # not lost: the training's own thread raises it
            self._failure = error
        finally:
            sys.setswitchinterval(usual)
