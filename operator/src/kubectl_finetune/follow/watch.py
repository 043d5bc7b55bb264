"""`watch`: follows an object, its Pods and Events by kubectl's watches, until it has ended or time is over."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from finetune_view import children
from finetune_view.fields import Fields, Object
from finetune_view.resource import Resource
from kubectl_finetune.cluster.kubectl import Kubectl, error_of, watched
from kubectl_finetune.display.numbers import duration
from kubectl_finetune.display.terminal import tell
from kubectl_finetune.errors import ExitCode, ForbiddenError, NotFoundError, PluginError
from kubectl_finetune.follow.watch_state import WatchState, screen_of

LONGEST_OUTAGE_SECONDS = 600.0
"""After so long without an answer the watch gives up."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
LOOK_SECONDS = 0.5
LONGEST_HELD_SECONDS = 2.0
"""Events are printed once nothing has come for a look, and at the latest after so long."""


@dataclass(frozen=True)
class Change:
    """One event of a watch. `error`: why the watch `source` ended; None if the API server ended it, as it does."""

    source: str
    kind: str = ""
    found: Object = field(default_factory=dict)
    error: PluginError | None = None
    ended: bool = False


class Watches:
    """kubectl's watches as one queue of changes. Leaving the context ends them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.changes: queue.Queue[Change] = queue.Queue()

    def start(self, source: str, *words: str) -> None:
        """Start (again) to watch."""
        self.stop(source)
        process = self._kubectl.start("get", *words, "--watch", "--output-watch-events", "-o", "json")
        self._processes[source] = process
        threading.Thread(target=self._read, args=(source, process), daemon=True).start()

    def stop(self, source: str) -> None:
        """End one watch; that it ended is no change."""
        process = self._processes.pop(source, None)
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Watches:
        return self

    def __exit__(self, *_: object) -> None:
        for source in list(self._processes):
            self.stop(source)

    def _read(self, source: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        error: PluginError | None = None
        stderr: list[str] = []
        reader = threading.Thread(target=lambda: stderr.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            for kind, found in watched(process.stdout):
                self.changes.put(Change(source, kind, found))
        except (PluginError, ValueError) as broken:  # ValueError: the pipe was closed by `stop`
            error = broken if isinstance(broken, PluginError) else None
        reader.join(timeout=5)
        if process.wait() != 0 and error is None:
            error = error_of("".join(stderr))
        if self._processes.get(source) is process:
            self.changes.put(Change(source, error=error, ended=True))


class Watcher:
    """Follows one object. `say` prints a line where there is no terminal."""

    def __init__(self, kubectl: Kubectl, wanted: Resource, say: Callable[[str], None]) -> None:
        self._kubectl = kubectl
        self._wanted = wanted
        self._say = say
        self._uid = ""
        self._failures: dict[str, int] = {}
        self._again: dict[str, float] = {}
        self._lost_since: float | None = None
        self._held: list[Change] = []
        self._held_since = 0.0
        self._last: list[str] = []
        self.state = WatchState()

    def follow(
        self, watches: Watches, deadline: float | None, until_stalled: bool, look: Callable[[], None]
    ) -> ExitCode:
        """Until the object has ended. Raises PluginError when it can't be followed."""
        self._start(watches, "object")
        while True:
            look()
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return ExitCode.TIMED_OUT
            for source in [source for source, moment in self._again.items() if moment <= now]:
                del self._again[source]
                self._start(watches, source)
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - now)
            is_quiet = not self._take_all(watches, max(0.01, left))
            code = self._end(until_stalled)
            if is_quiet or code is not None or (self._held and now - self._held_since >= LONGEST_HELD_SECONDS):
                self._take_events()
            if code is not None:
                self._say_all(self._last)
                return code

    def _take_all(self, watches: Watches, seconds: float) -> bool:
        """All that is there, before the next picture; whether there was anything within these seconds."""
        try:
            self._take(watches, watches.changes.get(timeout=seconds))
        except queue.Empty:
            return False
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(watches, watches.changes.get_nowait())
        return True

    def _take_events(self) -> None:
        """Those that were held, in the order of their times: a watch begins with those that exist, by their names."""
        held, self._held = sorted(self._held, key=lambda one: children.Event(Fields(one.found)).timestamp), []
        for change in held:
            self._say_all(self.state.take_event(change.kind, change.found))

    def _start(self, watches: Watches, source: str) -> None:
        if source == "object":
            watches.start(source, self._wanted.kind.resource, self._wanted.name)
        elif source == "pods" and self.state.view is not None:
            watches.start(source, "pods", "-l", children.selector(self.state.view))
        elif source == "events":
            watches.start(source, "events")

    def _take(self, watches: Watches, change: Change) -> None:
        if change.ended:
            self._ended(change)
            return
        self._failures.pop(change.source, None)
        if change.source == "object":
            self._lost_since = None
            lines = self.state.take_object(change.kind, change.found)
            view = self.state.view
            if view is not None and view.outcome is not None:
                self._last += lines  # after the Events that are still held: how it ended is the last line
            else:
                self._say_all(lines)
            if view is not None and view.uid != self._uid:
                self._uid = view.uid
                for source in ("pods", "events"):
                    self._start(watches, source)
        elif change.source == "pods":
            self._say_all(self.state.take_pod(change.kind, change.found))
        else:
            self._held_since = self._held_since if self._held else time.monotonic()
            self._held.append(change)

    def _say_all(self, lines: list[str]) -> None:
        for line in lines:
            self._say(line)

    def _ended(self, change: Change) -> None:
        """A watch ended: the API server ends each after a while. What is not allowed is not tried again."""
        source, error = change.source, change.error
        if source != "object" and isinstance(error, ForbiddenError):
            self.state.notes.append(f"{source.capitalize()} are not shown: {error}")
            self._say(self.state.notes[-1])
            return
        if source == "object" and error is not None:
            now = time.monotonic()
            self._lost_since = self._lost_since or now
            final = isinstance(error, NotFoundError | ForbiddenError) or self.state.view is None
            if final or now - self._lost_since > LONGEST_OUTAGE_SECONDS:
                raise error
        failures = self._failures.get(source, 0)
        self._failures[source] = failures + 1
        pause = PAUSES[min(failures, len(PAUSES) - 1)]
        self._again[source] = time.monotonic() + pause
        if source == "object" and error is not None:
            self._say(f"connection lost, trying again in {pause:.0f} s: {error}")

    def _end(self, until_stalled: bool) -> ExitCode | None:
        view = self.state.view
        if view is None:
            return None
        if self.state.deleted:
            return ExitCode.NOT_FOUND
        if view.outcome is not None:
            return ExitCode.SUCCEEDED if view.outcome == "Succeeded" else ExitCode.FAILED
        return ExitCode.STALLED if until_stalled and view.stalled else None


def watch(
    kubectl: Kubectl, wanted: Resource, to: Console, *, timeout: float | None = None, until_stalled: bool = False
) -> tuple[ExitCode, WatchState]:
    """Follow the object in the console; returns how it ended, and what was seen. Raises PluginError."""
    deadline = None if timeout is None else time.monotonic() + timeout

    def say(line: str) -> None:
        if not to.is_terminal:
            to.print(f"{datetime.now().astimezone():%H:%M:%S}  {line}", soft_wrap=True)

    watcher = Watcher(kubectl, wanted, say)
    with Watches(kubectl) as watches, _live(to, watcher) as look:
        code = watcher.follow(watches, deadline, until_stalled, look)
    if code is ExitCode.TIMED_OUT:
        tell(f"{wanted} has not ended after {duration(timeout or 0)}; it goes on.")
    return code, watcher.state


@contextlib.contextmanager
def _live(to: Console, watcher: Watcher) -> Iterator[Callable[[], None]]:
    """What draws the picture; nothing where there is no terminal."""
    if not to.is_terminal:
        yield lambda: None
        return
    with Live(console=to, auto_refresh=False, transient=True, vertical_overflow="ellipsis") as live:
        yield lambda: live.update(screen_of(watcher.state, datetime.now(UTC), to.width, to.height), refresh=True)
