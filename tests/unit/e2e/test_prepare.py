"""A fresh machine's two halves: when one fails, a person learns it at once, not when the other has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from e2e import prepare
from e2e.cluster import resolve
from e2e.cluster.resolve import Flavour
from e2e.images import build as images
from e2e.steps import StepFailed

FAILURE = "There is no disk left. What to do: make room."


def test_the_first_failure_is_reported_while_the_other_half_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def build() -> None:
        """Goes on until the failure was told."""
        assert told.wait(20)

    def up() -> None:
        raise StepFailed(FAILURE)

    def say(text: str, **_: object) -> None:
        if FAILURE in text:
            told.set()

    monkeypatch.setattr(resolve, "flavour", lambda: Flavour.OWN)
    monkeypatch.setattr(images, "build", build)
    monkeypatch.setattr(resolve, "up", up)
    monkeypatch.setattr(prepare.console, "print", say)
    with pytest.raises(StepFailed, match="no disk left"):
        prepare.cluster_with_images()
    assert told.is_set()


PROGRAM = """
import signal
from e2e import prepare
from e2e.images import build as images
from e2e.cluster import resolve
from e2e.steps import step

def work():
    with step("Work") as current:
        current.run(["sh", "-c", "echo working >&2; sleep 60"], timeout=90)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
resolve.flavour = lambda: None
images.build = work
resolve.up = work
prepare.cluster_with_images()
"""


def test_ctrl_c_ends_both_halves(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 20
        while sum("working" in log.read_text().splitlines() for log in tmp_path.rglob("work*.log")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.wait(10) != 0


AFTER_CTRL_C = """
import threading
from e2e import steps

def work():
    with steps.step("Work") as current:
        current.run(["sh", "-c", "sleep 60"], timeout=90)

start, started = steps.subprocess.Popen, []
def popen(*words, **options):
    process = start(*words, **options)
    steps.end_commands()  # Ctrl-C, before anybody knows of the process
    started.append(process)
    return process

steps.subprocess.Popen = popen
for attempt in range(2):
    try:
        work()
    except steps.StepFailed as failure:
        print(str(failure).splitlines()[0])
print(len(started), started[0].returncode)
"""


def test_ctrl_c_ends_a_command_that_is_just_being_started_and_no_other_begins(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", AFTER_CTRL_C], env=environment, capture_output=True, text=True, timeout=20
    )
    assert run.stdout.splitlines() == [
        "Work: sh ended with status -9.",
        "Work: sh was not started: the run was interrupted.",
        "1 -9",
    ], run.stderr
