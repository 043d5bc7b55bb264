"""Processes that start in a fraction of a second: forked from one that has imported everything.

A test run has one such server. It starts with the first process, when every test file is imported and has said what
it wants preloaded; its environment is of that moment, so each process is given the one of the test that starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

context = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


def preload(*modules: str) -> None:
    """Let the server import these at its start."""
    _preloaded.extend(modules)
    context.set_forkserver_preload(_preloaded)


def start_forked(target: Callable[..., None], *args: Any, daemon: bool = False) -> BaseProcess:
    """Call `target` in a process of its own, which has the caller's environment; returns once it is started."""
    process = context.Process(target=_call, args=(dict(os.environ), target, args), daemon=daemon)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(sys.path))  # of the server, should this be what starts it
        process.start()
    return process


def _call(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target(*args)


def _end_with_parent() -> None:
    """Nobody would end this process once the run of the tests was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
