"""What a person reads when a step of the set-up fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from e2e.steps import StepFailed, failing_plainly, step, tail, timings


def test_a_failed_command_shows_the_end_of_its_log_where_it_is_and_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    script = "for i in range(30): print(f'line {i}')\nraise SystemExit(3)"
    with pytest.raises(StepFailed) as failed, step("Build it", remedy="look there", log=log) as current:
        current.run([sys.executable, "-c", script], timeout=60)
    text = str(failed.value)
    assert "Build it" in text
    assert "ended with status 3" in text
    shown = [line.removeprefix("  | ") for line in text.splitlines() if line.startswith("  | ")]
    assert shown == [f"line {i}" for i in range(10, 30)]
    assert str(log) in text
    assert text.endswith("What to do: look there")


def test_a_command_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with (
        pytest.raises(StepFailed, match="took more than 1 s and was stopped"),
        step("Hang", log=tmp_path / "log") as current,
    ):
        current.run([sys.executable, "-c", parent], timeout=1)


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with (
        pytest.raises(StepFailed, match="no-such-command can't be started"),
        step("Go", log=tmp_path / "log") as current,
    ):
        current.run(["no-such-command"], timeout=1)


def test_each_step_is_timed_with_its_depth(tmp_path: Path) -> None:
    before = len(timings())
    with step("Outer", log=tmp_path / "outer"), step("Inner", log=tmp_path / "inner"):
        pass
    with pytest.raises(ZeroDivisionError), step("Broken", log=tmp_path / "broken"):
        raise ZeroDivisionError
    ended = [(timing.title, timing.depth, timing.failed) for timing in timings()[before:]]
    assert ended == [("Inner", 1, False), ("Outer", 0, False), ("Broken", 0, True)]


def test_a_failure_is_printed_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, failing_plainly():
        raise StepFailed("It broke. What to do: mend it.")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "It broke. What to do: mend it.\n"


@pytest.mark.parametrize(
    ("content", "last"),
    [(b"", []), (b"a\nb\n\n", ["b"]), (b"10 %\r20 %\r", ["20 %"]), (b"half\xff line", ["half\ufffd line"])],
)
def test_the_last_line_of_a_log(content: bytes, last: list[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(content)
    assert tail(tmp_path / "log", 1) == last
