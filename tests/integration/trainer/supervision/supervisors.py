"""Supervisors that run (supervised.py), and what they and their children leave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_api.pod_contracts.outcome import Failure, parse_termination_message
from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Beat
from tests.integration import forked
from tests.integration.trainer.supervision.supervised import run

DEADLINE_SECONDS = 120.0
forked.preload("finetune_trainer.train.train", "tests.integration.trainer.supervision.supervised")


@dataclass(frozen=True)
class Supervised:
    """A supervisor that runs, and what it and its child leave."""

    process: forked.ForkedCommand
    folder: Path

    def beats(self, number: int = 1, step: int = 8) -> list[Beat]:
        """The beats of so many processes, as soon as all are in this step."""
        wait_for(lambda: sum(beat.step >= step for beat in self._read()) == number)
        return self._read()

    def _read(self) -> list[Beat]:
        files = list(self.folder.rglob("heartbeats"))
        return heartbeats.read(files[0]) if files else []

    def end(self) -> tuple[int, str]:
        """The exit code, and all output."""
        return self.process.end(DEADLINE_SECONDS)

    def told(self) -> Failure:
        outcome = parse_termination_message(self.message)
        assert isinstance(outcome, Failure)
        return outcome

    @property
    def message(self) -> str:
        return (self.folder / "termination-log").read_text()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def supervised(command: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Supervised]:
    """The command of supervised.py, for as long as the test runs."""
    folder.mkdir(exist_ok=True)
    (folder / "termination-log").touch()
    process = forked.ForkedCommand(
        run, command, folder, environment=environment or os.environ, folder=folder, output=folder / "output"
    )
    try:
        yield Supervised(process, folder)
    finally:
        process.kill()
        process.wait(DEADLINE_SECONDS)
