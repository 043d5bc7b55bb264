"""Processes that start in a fraction of a second: forked from one that has imported everything.

A test run has one such server. It starts with the first process, when every test file is imported and has said what
it wants preloaded; its environment is of that moment, so each process is given the one of the test that starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.integration.preloaded"])
PRELOADED = "PRELOADED"
"""The variable that tells the server which modules to import."""
_preloaded: dict[str, None] = {}


def preload(*modules: str) -> None:
    """Let the server import these at its start."""
    _preloaded.update(dict.fromkeys(modules))


def start_forked(target: Callable[..., None], *args: Any, daemon: bool = False) -> BaseProcess:
    """Call `target` in a process of its own, which has the caller's environment; returns once it is started."""
    return _start(_call, (dict(os.environ), target, args), daemon)


class ForkedCommand:
    """A command in a process of its own, spoken to as a `subprocess.Popen` is. It goes with this process."""

    def __init__(
        self, command: Callable[..., int], *args: Any, environment: Mapping[str, str], folder: Path, output: Path
    ) -> None:
        """Call `command`, which answers the exit code, in `folder`; what it writes goes to `output`."""
        self._process = _start(_run, (dict(environment), folder, output, command, args), daemon=False)
        self._output = output

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> int:
        """The exit code (a signal: negative). Raises TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._output), timeout)
        return self.returncode

    def end(self, timeout: float) -> tuple[int, str]:
        """The exit code, and all output. Raises TimeoutExpired."""
        return self.wait(timeout), self._output.read_text()


def _start(target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> BaseProcess:
    process = context.Process(target=target, args=args, daemon=daemon)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(sys.path))  # of the server, should this be what starts it
        patch.setenv(PRELOADED, " ".join(_preloaded))
        process.start()
    return process


def _call(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # is looked up once, in the server's environment
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target(*args)


def _end_with_parent() -> None:
    """Nobody would end this process once the run of the tests was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _run(
    environment: dict[str, str], folder: Path, output: Path, command: Callable[..., int], args: tuple[Any, ...]
) -> None:
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    _call(environment, lambda: sys.exit(command(*args)), ())
