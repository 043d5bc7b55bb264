"""A process in which a grader's code runs, as the server sees it: started, asked, watched and killed.

Everything that it answers may be forged by the code, which can only cheat about its own row: a row has a number that
can't be guessed, and a process that says anything else than one answer to the current row is killed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp
from typing import Any

from finetune_trainer.sandbox import scratch
from finetune_trainer.sandbox.frames import (
    DETAILS_LENGTH,
    HEADER,
    MOST_REPLY_BYTES,
    FrameError,
    from_body,
    length_of,
    to_frame,
)
from finetune_trainer.sandbox.limits import cpu_seconds, lifetime_seconds

START_SECONDS = 300.0
"""For Python to start and the walls to be put up: 0.1 s. The client gives up before, and may try again."""
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "MPLCONFIGDIR": ".",
    # More threads than that would outlive a row.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_PROGRAM = "import sys; from finetune_trainer.sandbox.code_process import main; main(int(sys.argv[1]))"


class SandboxError(Exception):
    """A wall of the sandbox could not be put up: nothing may run."""


class TimedOutError(Exception):
    """The code did not answer in time."""


class EndedError(Exception):
    """The process ended, or broke the rules, before it answered. The message says how."""


@dataclass(frozen=True)
class Answer:
    """What the code says of a row: a score from 0 to 1, or why it has none."""

    score: float | None
    error: str = ""


class RunningProcess:
    """One process with its own folder. It is used by one thread."""

    def __init__(self, source: str, timeout_seconds: int, parent: Path) -> None:
        """Raises SandboxError unless every wall is up. Nothing of the source has run then."""
        self._timeout = float(timeout_seconds)
        self._retires = time.monotonic() + lifetime_seconds(timeout_seconds)
        self._folder = Path(mkdtemp(prefix="grader-", dir=parent))
        self._answers, theirs = os.pipe()
        os.set_blocking(self._answers, False)
        try:
            self._process = _start(theirs, self._folder)
        except OSError as error:
            os.close(self._answers)
            self._folder.rmdir()
            raise SandboxError(f"Python does not start in the sandbox: {error}") from error
        finally:
            os.close(theirs)
        assert self._process.stdin is not None, "it is a pipe"
        self._rows = self._process.stdin.fileno()
        os.set_blocking(self._rows, False)
        self.landlock_abi = self._lock_in(source, timeout_seconds)

    @property
    def is_worn(self) -> bool:
        """Whether the next row needs a new one: threads are left from the last row, it spoke unasked, or it is old."""
        if time.monotonic() > self._retires or _readable(self._answers, 0):
            return True
        try:
            return len(list(Path(f"/proc/{self._process.pid}/task").iterdir())) != 1
        except OSError:
            return True

    def grade(self, sample: Any, item: Any) -> Answer:
        """Raises TimedOutError, EndedError, FrameError; after the first two it has to be closed."""
        number = token_hex(16)
        frame = to_frame({"id": number, "sample": sample, "item": item})
        deadline = time.monotonic() + self._timeout
        self._send(frame, deadline)
        answer = self._receive(deadline)
        if answer.get("id") != number:
            raise EndedError("It answered to a row that was not asked, and was killed.")
        return _checked(answer)

    def close(self) -> None:
        """Kill it, with what it has written."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(OSError):
            self._process.stdin.close()
        os.close(self._answers)
        scratch.remove(self._folder)

    def _lock_in(self, source: str, timeout_seconds: int) -> int:
        deadline = time.monotonic() + START_SECONDS
        settings = {
            "source": source,
            "folder": str(self._folder),
            "server": os.getpid(),
            "cpuSeconds": cpu_seconds(timeout_seconds),
        }
        try:
            self._send(to_frame(settings), deadline)
            answer = self._receive(deadline)
        except (TimedOutError, EndedError) as error:
            self.close()
            raise SandboxError(f"a process of the sandbox does not start: {error}") from error
        version = answer.get("landlockAbi")
        if not isinstance(version, int):
            self.close()
            raise SandboxError(str(answer.get("problem"))[:DETAILS_LENGTH])
        return version

    def _send(self, frame: bytes, deadline: float) -> None:
        left = memoryview(frame)
        while left:
            if not _writable(self._rows, deadline - time.monotonic()):
                raise TimedOutError
            try:
                left = left[os.write(self._rows, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise EndedError(self._how_it_ended()) from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        try:
            length = length_of(self._read(HEADER.size, deadline), MOST_REPLY_BYTES)
            return from_body(self._read(length, deadline))
        except FrameError as error:
            raise EndedError(f"It sent {error}, and was killed.") from error

    def _read(self, length: int, deadline: float) -> bytes:
        found = b""
        while len(found) < length:
            if not _readable(self._answers, deadline - time.monotonic()):
                raise TimedOutError
            try:
                part = os.read(self._answers, length - len(found))
            except BlockingIOError:
                continue
            if not part:
                raise EndedError(self._how_it_ended())
            found += part
        return found

    def _how_it_ended(self) -> str:
        """It has closed its end, and is about to end, or has to."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        if code is None:
            return "Its process stopped answering, and was killed."
        if code < 0:
            return f"Its process was killed by {signal.Signals(-code).name} before it returned."
        return f"Its process ended with exit code {code} before it returned."


def _start(replies: int, folder: Path) -> subprocess.Popen[bytes]:
    """Python, before anything of the code has been read. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-X", "utf8", "-c", _PROGRAM, str(replies)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(replies,),
        env=ENVIRONMENT | {"TMPDIR": str(folder), "HOME": str(folder)},
        start_new_session=True,
    )


def _checked(answer: dict[str, Any]) -> Answer:
    """Raises EndedError for what `code_process` never answers: the code has written it itself."""
    score, error = answer.get("score"), answer.get("error")
    if isinstance(error, str) and score is None:
        return Answer(None, error[: 2 * DETAILS_LENGTH])
    if isinstance(score, int | float) and not isinstance(score, bool) and error is None and 0 <= score <= 1:
        return Answer(float(score))
    raise EndedError("It sent a score that is no number from 0 to 1, and was killed.")


def _readable(descriptor: int, seconds: float) -> bool:
    return _polled(descriptor, select.POLLIN, seconds)


def _writable(descriptor: int, seconds: float) -> bool:
    return _polled(descriptor, select.POLLOUT, seconds)


def _polled(descriptor: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0, math.ceil(seconds * 1000))))
