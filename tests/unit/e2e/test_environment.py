"""Two runs on one .venv: one installs, the other waits; a run that was killed half way is waited for too."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e import environment

# What is in the place of uv notes when it begins and ends.
UV = """#!/bin/sh
echo "begin $2 $3" >> "$0.log"
sleep 1
echo "end" >> "$0.log"
"""
ONE_INSTALLATION = ["begin install --require-hashes", "end", "begin install --no-deps", "end"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the project with a .venv in which nothing is installed."""
    (tmp_path / "e2e").mkdir()
    shutil.copy(environment.__file__, tmp_path / "e2e")
    shutil.copytree(environment.ROOT / "locks", tmp_path / "locks")
    shutil.copy(environment.PROJECT, tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "python").symlink_to(sys.executable)
    (commands / "uv").write_text(UV)
    (commands / "uv").chmod(0o755)
    (tmp_path / ".venv" / ".made").write_text(f"{tmp_path / '.venv'}\nuv {environment.UV_VERSION}\n")
    return tmp_path


def start(clone: Path, name: str = "e2e") -> subprocess.Popen[str]:
    command = [sys.executable, "-S", str(clone / "e2e" / "environment.py"), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def log(clone: Path) -> list[str]:
    file = clone / ".venv" / "bin" / "uv.log"
    return file.read_text().splitlines() if file.exists() else []


def test_of_two_runs_at_once_one_installs(clone: Path) -> None:
    runs = [start(clone), start(clone)]
    said = "".join(run.communicate(timeout=60)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0], said
    assert log(clone) == ONE_INSTALLATION
    assert "Wait for another run that installs into .venv" in said


def test_the_command_of_a_run_that_was_killed_is_waited_for(clone: Path) -> None:
    killed = start(clone)
    deadline = time.monotonic() + 20
    while not log(clone):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    run = start(clone)
    assert run.communicate(timeout=60)[0].startswith("Wait for another run")
    assert log(clone) == [*ONE_INSTALLATION[:2], *ONE_INSTALLATION]
    killed.communicate(timeout=60)


@pytest.mark.parametrize("damage", ["moved", "half made", "without Python"])
def test_what_can_not_be_used_is_recreated(clone: Path, damage: str) -> None:
    """Its stamps say that all is installed."""
    start(clone).communicate(timeout=60)
    if damage == "moved":
        clone = clone.rename(clone.with_name("moved"))
    elif damage == "half made":
        (clone / ".venv" / ".made").unlink()
    else:
        (clone / ".venv" / "bin" / "python").unlink()
        (clone / ".venv" / "bin" / "python").symlink_to("/usr/bin/python-of-last-year")
    run = start(clone)
    assert run.stdout is not None
    assert run.stdout.readline() == "Make .venv ...\n"
    run.kill()
    run.communicate(timeout=60)


def test_what_is_installed_is_left_alone(clone: Path) -> None:
    start(clone).communicate(timeout=60)
    assert start(clone).communicate(timeout=60)[0] == ""
    assert log(clone) == ONE_INSTALLATION
