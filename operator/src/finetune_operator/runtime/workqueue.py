"""The work queue: client-go's semantics on asyncio.

A key is handed to one worker at a time. Added again while it waits, it stays one entry; added while it is processed, it
is queued again afterwards. Failed keys are requeued after an exponential, jittered delay until `forget`.
Source: k8s.io/client-go/util/workqueue.
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


class WorkQueue(Generic[Key]):
    """Keys that need work. Not thread-safe: one event loop only.

    Others than those that it `accepts` are dropped.
    """

    def __init__(self, accepts: Callable[[Key], bool] = lambda _: True) -> None:
        self._accepts = accepts
        self._ready: deque[Key] = deque()
        self._dirty: dict[Key, float] = {}
        self._processing: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._wakeup = asyncio.Event()
        self._is_shut_down = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Ask for work on a key, as soon as a worker is free."""
        if key in self._dirty or self._is_shut_down or not self._accepts(key):
            return
        self._dirty[key] = time.monotonic()
        if key not in self._processing:
            self._ready.append(key)
            self._wakeup.set()

    def add_unless_processing(self, key: Key) -> None:
        """Ask for work on a key, unless somebody works on it right now."""
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
        while not self._ready:
            if self._is_shut_down:
                return None
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._processing.add(key)
        return key, time.monotonic() - self._dirty.pop(key)

    def done(self, key: Key) -> None:
        """The work on a key has ended, with success or not."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wakeup.set()

    def shut_down(self) -> None:
        """Hand out and accept no more keys, and drop those that wait: the next process reconciles everything."""
        self._is_shut_down = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._dirty.clear()
        self._wakeup.set()

    def waiting(self) -> Iterable[Key]:
        """The keys that wait for a worker, the next one first."""
        return tuple(self._ready)

    def oldest_wait_seconds(self) -> float:
        """How long the key that waits longest has been ready; 0 when none waits."""
        return time.monotonic() - self._dirty[self._ready[0]] if self._ready else 0.0

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
