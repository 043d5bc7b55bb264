"""A test run with several workers, as `make test` has it: what goes wrong in one of them is told by the test's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TESTS = """
import os
import time


def test_that_hangs() -> None:
    time.sleep(60)


def test_that_ends_its_worker() -> None:
    os._exit(7)
"""

WITH_CONTROL_PLANE = """
from collections.abc import Iterator

import pytest

from tests.integration.conftest import pytest_runtest_teardown

ENDED = []


@pytest.fixture(scope="session")
def cluster() -> Iterator[list[str]]:
    yield ENDED
    ENDED.append("control plane")


@pytest.fixture(scope="session")
def operator(cluster: list[str]) -> Iterator[list[str]]:
    yield cluster
    cluster.append("operator")
"""
TESTS_AND_THEIR_PLACES = """
from conftest import ENDED


def test_one(operator: list[str]) -> None:
    assert ENDED == []


def test_between() -> None:
    assert ENDED == []


def test_last(cluster: list[str]) -> None:
    assert ENDED == []


def test_behind() -> None:
    assert ENDED == ["operator", "control plane"]
"""


def test_a_hung_test_and_a_dead_worker_are_reported_by_the_name_of_the_test(tmp_path: Path) -> None:
    """The run ends with the worker: pytest-xdist would give the test that killed it to the next one, and again."""
    (tmp_path / "test_bad.py").write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "--timeout=2"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--numprocesses=2", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAILED test_bad.py::test_that_hangs - Failed: Timeout (>2.0s)" in run.stdout
    assert "crashed while running 'test_bad.py::test_that_ends_its_worker'" in run.stdout


def test_a_control_plane_ends_with_the_last_test_that_has_one_and_not_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WITH_CONTROL_PLANE)
    (tmp_path / "test_places.py").write_text(TESTS_AND_THEIR_PLACES)
    options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--import-mode=prepend", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 passed" in run.stdout
