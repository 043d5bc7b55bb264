"""Operator processes: each with its own memory and connections, to be killed like any other."""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import structlog
import uvloop

from finetune_operator.core.kind_definition import Kind
from finetune_operator.environment import Environment
from finetune_operator.registered_kinds import KINDS
from finetune_operator.settings import Settings
from tests.integration.forked import preload, start_forked

END_SECONDS = 10.0
PROBE_SECONDS = 3.0
preload("finetune_operator.runtime.manager", __name__)


class ForkedOperator:
    """One operator that is started again and again, as the kubelet does with a container that ended."""

    def __init__(self, settings: Settings, log: Path, kinds: Sequence[Callable[[Environment], Kind]] = KINDS) -> None:
        self.settings = settings
        self.kinds = kinds
        self.log = log
        self.starts = 0
        self._process: BaseProcess | None = None
        self._next_probe = 0.0

    def keep_running(self) -> None:
        """Start it unless it runs, and kill it first when it says that only a restart cures it."""
        if self._process is not None and self._process.is_alive():
            if time.monotonic() < self._next_probe:
                return
            self._next_probe = time.monotonic() + PROBE_SECONDS
            if not self._says_that_it_is_dead():
                return
            self.kill()
        self._next_probe = time.monotonic() + PROBE_SECONDS
        self._process = start_forked(_operate, self.settings, self.log, self.kinds, daemon=True)
        self.starts += 1

    def _says_that_it_is_dead(self) -> bool:
        """Its liveness probe. One that does not answer, as at its start, is left alone."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.health_port}/healthz", timeout=5):
                return False
        except urllib.error.HTTPError as answer:
            return answer.code == 503
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        if self._process is not None:
            self._process.kill()
            self._process.join(END_SECONDS)


def _operate(settings: Settings, log: Path, kinds: Sequence[Callable[[Environment], Kind]]) -> None:
    """What the process does: `finetune-operator run` without the command line."""
    from finetune_operator.runtime.manager import run

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    uvloop.run(run(settings, kinds=kinds))
