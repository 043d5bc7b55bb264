"""The work queue: client-go's semantics on asyncio.

A key is handed to one worker at a time. Added again while it waits, it stays one entry; added while it is processed, it
is queued again afterwards. Failed keys are requeued after an exponential, jittered delay until `forget`.
Source: k8s.io/client-go/util/workqueue; low priority as in sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

BASE_DELAY_SECONDS = 0.005
MAX_DELAY_SECONDS = 300.0
LOW_PRIORITY_SHARE = 10
"""After this many other keys one of low priority is handed out, even while more of the others wait: none starves."""


class WorkQueue(Generic[Key]):
    """Keys that need work. Not thread-safe: one event loop only.

    Others than those that it `accepts` are dropped.
    """

    def __init__(self, accepts: Callable[[Key], bool] = lambda _: True) -> None:
        self._accepts = accepts
        self._ready: deque[Key] = deque()
        self._ready_low: dict[Key, None] = {}
        self._dirty: dict[Key, float] = {}
        self._low: set[Key] = set()
        """Of the dirty keys those that were asked for with low priority only."""
        self._since_low = 0
        self._processing: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wakeup = asyncio.Event()
        self._is_shut_down = False

    def __len__(self) -> int:
        """How many keys wait for a worker, without those of low priority."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Ask for work on a key, as soon as a worker is free."""
        if (key in self._dirty and key not in self._low) or self._is_shut_down or not self._accepts(key):
            return
        self._low.discard(key)
        self._ready_low.pop(key, None)
        self._dirty[key] = time.monotonic()
        if key not in self._processing:
            self._make_ready(key)

    def add_low_priority(self, key: Key) -> None:
        """Ask for work on a key that may wait until nothing else does."""
        if key in self._dirty or self._is_shut_down or not self._accepts(key):
            return
        self._low.add(key)
        self._dirty[key] = time.monotonic()
        if key not in self._processing:
            self._make_ready(key)

    def add_unless_processing(self, key: Key) -> None:
        """Ask for work on a key, unless a worker has it right now."""
        if key not in self._processing:
            self.add(key)

    def add_after(self, key: Key, delay_seconds: float) -> None:
        """Ask for work later. Of several delays for a key the earliest counts."""
        if self._is_shut_down:
            return
        if delay_seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= due:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def add_rate_limited(self, key: Key) -> float:
        """Ask for work after a failure; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2.0 ** min(failures, 30)) * random.uniform(0.8, 1.2)
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The key's work succeeded: its failures no longer count."""
        self._failures.pop(key, None)

    async def get(self) -> tuple[Key, float] | None:
        """Wait for a key; returns it with the seconds that it waited. Call `done` when its work has ended.

        None once the queue is shut down.
        """
        while not (self._ready or self._ready_low):
            if self._is_shut_down:
                return None
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._next()
        self._processing.add(key)
        return key, time.monotonic() - self._dirty.pop(key)

    def done(self, key: Key) -> None:
        """The work on a key has ended, with success or not."""
        self._processing.discard(key)
        if key in self._dirty:
            self._make_ready(key)

    def shut_down(self) -> None:
        """Hand out and accept no more keys, and drop those that wait: the next process reconciles everything."""
        self._is_shut_down = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._ready_low.clear()
        self._dirty.clear()
        self._low.clear()
        self._wakeup.set()

    def waiting(self) -> Iterable[Key]:
        """The keys that wait for a worker, the next one first; those of low priority at the end."""
        return (*self._ready, *self._ready_low)

    def oldest_wait_seconds(self) -> float:
        """How long the key that waits longest has been ready, low priority apart; 0 when none waits."""
        return time.monotonic() - self._dirty[self._ready[0]] if self._ready else 0.0

    def _make_ready(self, key: Key) -> None:
        if key in self._low:
            self._ready_low[key] = None
        else:
            self._ready.append(key)
        self._wakeup.set()

    def _next(self) -> Key:
        is_low = bool(self._ready_low) and (not self._ready or self._since_low >= LOW_PRIORITY_SHARE)
        self._since_low = 0 if is_low else self._since_low + 1
        if not is_low:
            return self._ready.popleft()
        key = next(iter(self._ready_low))
        del self._ready_low[key]
        self._low.discard(key)
        return key

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
