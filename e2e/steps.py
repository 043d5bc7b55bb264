"""How all set-up talks to a person: what it is doing, for how long, and what to do when it failed.

    from e2e.steps import step

    with step("Build the operator's image", remedy="see docs/how-to/develop.md") as current:
        current.run(["buildah", "bud", "."], timeout=600)          # output goes to current.log
        current.say("pushing")                                     # or tell by hand what is happening
        current.run(["buildah", "push", image], timeout=300)

On a terminal every running step has one live line: title, elapsed time, last line of its log. Elsewhere each
running step prints a plain line at least every 8 s. When it ends it prints one line with the time it took.
Steps nest, and may run in several threads at once. A command that fails or runs out of time raises StepFailed,
whose text holds the last 20 lines of the log, the log's path and the remedy; `failing_plainly` prints that
instead of a traceback. `timings()` and `timings_table()` tell what each step took in this process.

All of it goes to stderr, so that a command's own output stays clean.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.cache import cache_dir
from e2e.cluster.machine.children import guarded

PLAIN_LINE_EVERY_SECONDS = 8.0
TAIL_LINES = 20

console = Console(stderr=True, highlight=False, soft_wrap=True)
_interrupted = threading.Event()


class StepFailed(Exception):
    """A set-up step failed. Its text is meant for a person: what happened, where, and what to do."""


@dataclass(frozen=True)
class Timing:
    """What one finished step took. `depth` is 0 for a step that ran inside no other."""

    title: str
    seconds: float
    depth: int
    failed: bool


@dataclass(eq=False)
class Step:
    """A running step; made by `step`."""

    title: str
    log: Path
    remedy: str
    parent: Step | None
    started: float = field(default_factory=time.monotonic)
    _said: str = ""
    _command: subprocess.Popen[bytes] | None = None

    def say(self, what: str) -> None:
        """Show `what` as the step's last line, until its log grows or something else is said."""
        self._said = what

    @property
    def depth(self) -> int:
        return self.parent.depth + 1 if self.parent else 0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def last_line(self) -> str:
        return self._said or (tail(self.log, 1) or [""])[0]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        outlives: bool = False,
    ) -> None:
        """Run a command with its output in the step's log.

        `timeout` is in seconds; `env` is added to this process's environment. The command gets a session of its
        own, so that a timeout or Ctrl-C ends its children too; it ends with this process, however that ends, unless
        `outlives`, for what leaves a mess when it is killed. Raises StepFailed.
        """
        words = [str(word) for word in argv]
        self._said = ""
        if _interrupted.is_set():
            raise self.failure(f"{words[0]} was not started: the run was interrupted")
        with self.log.open("ab") as output:
            output.write(f"$ {' '.join(words)}\n".encode())
            output.flush()
            environment = {**os.environ, **(env or {})}
            if shutil.which(words[0], path=environment.get("PATH")) is None:
                raise self.failure(f"{words[0]} can't be started: there is no such command")
            try:
                process = subprocess.Popen(
                    words if outlives else guarded(words),
                    stdin=subprocess.DEVNULL if outlives else subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise self.failure(f"{words[0]} can't be started: {error.strerror}") from error
            self._command = None if outlives else process
            if _interrupted.is_set():  # while it was started, when there was nothing yet to end
                self.end_command()
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise self.failure(f"{words[0]} took more than {timeout:.0f} s and was stopped") from error
            finally:
                self._command = None
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        if status != 0:
            raise self.failure(f"{words[0]} ended with status {status}")

    def end_command(self) -> None:
        """Kill the command that runs in it, unless that must not be."""
        if (command := self._command) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)

    def failure(self, what: str) -> StepFailed:
        """The exception that says `what` failed, with the end of the step's log, its path and the remedy."""
        lines = [f"{self.title}: {what}."]
        if ending := tail(self.log, TAIL_LINES):
            lines += [f"The last lines of {self.log}:", *(f"  | {line}" for line in ending)]
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return StepFailed("\n".join(lines))


def tail(log: Path, count: int) -> list[str]:
    """The last `count` lines of a text file that are not blank; none where there is no file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4000 - 400 * count))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()][-count:]


class _Display:
    """Shows all running steps from one thread, which lives while there are any."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: list[Step] = []
        self.finished: list[Timing] = []
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None

    def begin(self, new: Step) -> None:
        with self.lock:
            self.running.append(new)
            if not console.is_terminal:
                console.print(f"{_indent(new)}{new.title} ...", markup=False)
            if self.thread is None:
                self.wake.clear()
                show = self._live if console.is_terminal else self._plain
                self.thread = threading.Thread(target=show, name="steps", daemon=True)
                self.thread.start()

    def end(self, done: Step, failed: bool) -> None:
        with self.lock:
            self.running.remove(done)
            self.finished.append(Timing(done.title, done.seconds(), done.depth, failed))
            mark, style = ("failed", "red") if failed else ("done", "green")
            line = Text(f"{_indent(done)}{done.title}: ").append(mark, style).append(f" ({_took(done.seconds())})")
            console.print(line)
            ending = self.thread if not self.running else None
            if ending:
                self.thread = None
                self.wake.set()
        if ending:
            ending.join()

    def _lines(self) -> Group:
        with self.lock:
            width = console.width - 1
            lines = [Text(f"{_indent(s)}{s.title}  {_took(s.seconds())}  {s.last_line()}") for s in self.running]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return Group(*lines)

    def _live(self) -> None:
        with Live(get_renderable=self._lines, console=console, refresh_per_second=4, transient=True):
            self.wake.wait()

    def _plain(self) -> None:
        while not self.wake.wait(PLAIN_LINE_EVERY_SECONDS):
            with self.lock:
                parents = [one.parent for one in self.running]
                for current in (one for one in self.running if one not in parents):
                    text = f"{_indent(current)}{current.title} ... {_took(current.seconds())} {current.last_line()}"
                    console.print(text[:200], markup=False)


_display = _Display()
_current: ContextVar[Step | None] = ContextVar("current_step", default=None)


@contextlib.contextmanager
def step(title: str, *, remedy: str = "", log: Path | None = None) -> Iterator[Step]:
    """Do one step of the set-up; see the module's text. `log` defaults to a file in the cache, made anew.

    Where another run is at a step of that title, the file's name ends in a number.
    """
    path = log or cache_dir() / "logs" / (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".log")
    with _log_of_our_own(path) as ours:
        current = Step(title, ours, remedy, _current.get())
        token = _current.set(current)
        _display.begin(current)
        failed = True
        try:
            yield current
            failed = False
        finally:
            _current.reset(token)
            _display.end(current, failed)


@contextlib.contextmanager
def _log_of_our_own(path: Path) -> Iterator[Path]:
    """An empty log: `path`, or where another run or thread writes to that one, the first of path-2, path-3, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        with candidate.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            file.truncate(0)
            yield candidate
            return


def end_commands() -> None:
    """Kill the commands of all running steps, each of which then fails; for Ctrl-C, which reaches one thread only.

    None is started after it: another step's next command would keep the process for as long as it takes.
    """
    _interrupted.set()
    with _display.lock:
        running = list(_display.running)
    for current in running:
        current.end_command()


@contextlib.contextmanager
def failing_plainly() -> Iterator[None]:
    """For a command's outermost level: print a StepFailed as it is and exit with status 1."""
    try:
        yield
    except StepFailed as error:
        console.print(str(error), markup=False)
        raise SystemExit(1) from None


def timings() -> list[Timing]:
    """The steps that ended in this process, in the order in which they ended."""
    return list(_display.finished)


def timings_table() -> Table:
    """What each outermost step took, as a table to print."""
    table = Table("step", "took", title="What each step took")
    outermost = [timing for timing in timings() if timing.depth == 0]
    for timing in outermost:
        table.add_row(timing.title + (" (failed)" if timing.failed else ""), _took(timing.seconds))
    return table


def _indent(of: Step) -> str:
    return "  " * of.depth


def _took(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
