"""Heartbeats of the processes of a node for their supervisor, in shared memory.

A process records its phase and step whenever it makes progress. It also records how long it was silent between two
beats of training, so that the watchdog knows what is normal. A beat costs a few microseconds, and nothing at all
without a watchdog.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

GAPS_REMEMBERED = 40
"""Two for each step: from its start to its end, and to the next one's start."""
_LAYOUT = struct.Struct("<qqqqdqd")
_SLOT_BYTES = 64


class Phase(IntEnum):
    """The phase of a process."""

    STARTING = 0
    TRAINING = 1
    EVALUATING = 2
    SAVING = 3


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of a process. `time`: monotonic seconds; `slowest`: the longest of its last `gaps` in
    training."""

    pid: int
    rank: int
    phase: Phase
    step: int
    time: float
    gaps: int = 0
    slowest: float = 0.0


def prepare(file: Path, processes: int) -> None:
    """Create the shared memory for this many processes."""
    file.write_bytes(bytes(_SLOT_BYTES * processes))


def read(file: Path) -> list[Beat]:
    """The last heartbeat of every process that has one."""
    data = file.read_bytes()
    slots = [_LAYOUT.unpack_from(data, start) for start in range(0, len(data), _SLOT_BYTES)]
    return [
        Beat(pid, rank, Phase(phase), step, moment, gaps, slowest)
        for pid, rank, phase, step, moment, gaps, slowest in slots
        if pid and moment  # else the first one is just being written
    ]


def begin(file: Path, slot: int, rank: int) -> None:
    """Start to write this process's heartbeats to its slot of the file."""
    global _writer
    _writer = Writer(file, slot, rank)
    _writer.beat(Phase.STARTING, 0)


def beat(phase: Phase, step: int) -> None:
    """Record progress: the phase, and the current or last step. Called by the training thread."""
    if _writer is not None:
        _writer.beat(phase, step)


class Writer:
    """Writes one process's heartbeats."""

    def __init__(self, file: Path, slot: int, rank: int, clock: Callable[[], float] = time.monotonic) -> None:
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        self._start = slot * _SLOT_BYTES
        self._rank = rank
        self._clock = clock
        self._trained: float | None = None
        self._gaps: deque[float] = deque(maxlen=GAPS_REMEMBERED)

    def beat(self, phase: Phase, step: int) -> None:
        """Write a heartbeat."""
        now = self._clock()
        if self._trained is not None:
            self._gaps.append(now - self._trained)
        self._trained = now if phase is Phase.TRAINING else None
        slowest = max(self._gaps, default=0.0)
        # Not pack_into: it fills the slot with zeros first, and a reader took these for a silence since the boot.
        packed = _LAYOUT.pack(os.getpid(), self._rank, phase, step, now, len(self._gaps), slowest)
        self._memory[self._start : self._start + _LAYOUT.size] = packed


_writer: Writer | None = None
