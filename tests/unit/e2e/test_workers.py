"""A test run with several workers, as `make test` has it: what goes wrong in one of them is told by the test's name."""

from __future__ import annotations

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


def test_a_hung_test_and_a_dead_worker_are_reported_by_the_name_of_the_test(tmp_path: Path) -> None:
    """The run ends with the worker: pytest-xdist would give the test that killed it to the next one, and again."""
    (tmp_path / "test_bad.py").write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", "-p", "no:cacheprovider", "--timeout=2"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--numprocesses=2", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAILED test_bad.py::test_that_hangs - Failed: Timeout (>2.0s)" in run.stdout
    assert "crashed while running 'test_bad.py::test_that_ends_its_worker'" in run.stdout
