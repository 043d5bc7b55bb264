"""Processes that end with the part of a benchmark that started them, however it ends, with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], stdout: Path, stderr: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes to files (a pipe that nobody reads stops it when it is full). `stderr`: None: to `stdout`.

    On leaving, it and all processes of its group are killed.
    """
    with contextlib.ExitStack() as files:
        out = files.enter_context(stdout.open("wb"))
        error = subprocess.STDOUT if stderr is None else files.enter_context(stderr.open("wb"))
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=error, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does, so that what it started ends too, and its folders are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
