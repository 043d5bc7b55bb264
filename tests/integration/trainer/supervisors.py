"""Supervisors that run (supervised.py), and what they and their children leave."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.children import with_parent
from finetune_api.outcome import Failure, parse_termination_message
from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Beat

DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Supervised:
    """A supervisor that runs, and what it and its child leave."""

    process: subprocess.Popen[str]
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
        output, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, output

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
    process = subprocess.Popen(
        with_parent([sys.executable, "-m", "tests.integration.trainer.supervised", command, str(folder)]),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Supervised(process, folder)
    finally:
        process.kill()
        process.wait(DEADLINE_SECONDS)
