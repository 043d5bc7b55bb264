"""A part of a benchmark ends what it started, and removes what it wrote, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import training
from benchmarks.processes import running

DEADLINE_SECONDS = 60

FAMILY = """
import os, sys, time
child = os.fork()
if child:
    open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {child}")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
"""Writes its process id and its child's into a file."""

PART = """
import sys, tempfile
from pathlib import Path
from benchmarks.processes import end_on_sigterm, running
end_on_sigterm()
folder = Path(sys.argv[1])
with tempfile.TemporaryDirectory(dir=folder) as scratch:
    with running([sys.executable, "-c", sys.argv[2], str(folder / "ids")], {}, Path(scratch) / "log") as process:
        process.wait()
"""


def test_what_a_process_started_ends_with_it_when_the_part_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit),
        running([sys.executable, "-c", FAMILY, str(tmp_path / "ids")], {}, tmp_path / "log"),
    ):
        family = _ids(tmp_path / "ids")
        raise SystemExit("too late")

    assert all(_ends(one) for one in family)


def test_a_part_that_gets_sigterm_ends_what_it_started_and_removes_what_it_wrote(tmp_path: Path) -> None:
    part = subprocess.Popen([sys.executable, "-c", PART, str(tmp_path), FAMILY], stderr=subprocess.DEVNULL)
    family = _ids(tmp_path / "ids")
    part.send_signal(signal.SIGTERM)

    assert part.wait(DEADLINE_SECONDS) != 0
    assert all(_ends(one) for one in family)
    assert [file.name for file in tmp_path.iterdir()] == ["ids"]


def test_a_training_that_is_too_slow_is_reported_with_what_it_said(tmp_path: Path) -> None:
    with (
        training(tmp_path / "no-such-job.yaml", tmp_path / "output") as slow,
        pytest.raises(SystemExit, match="took too long"),
    ):
        slow.losses(deadline=time.monotonic())

    assert _ends(slow.process.pid)


def _ids(file: Path) -> list[int]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not file.exists():
        assert time.monotonic() < deadline, "the processes did not start"
        time.sleep(0.01)
    return [int(number) for number in file.read_text().split()]


def _ends(process: int) -> bool:
    """Whether it ends; one that has ended may wait for its parent."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
