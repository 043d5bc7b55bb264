"""What a person reads when a step of the set-up fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


def test_runs_and_threads_at_the_same_step_have_a_log_each(tmp_path: Path) -> None:
    with step("Go", log=tmp_path / "go.log") as first:
        first.run(["echo", "first"], timeout=20)
        with step("Go", log=tmp_path / "go.log") as second:
            second.run(["echo", "second"], timeout=20)
    assert first.log.read_text() == "$ echo first\nfirst\n"
    assert second.log.read_text() == "$ echo second\nsecond\n"
    with step("Go", log=tmp_path / "go.log") as third:
        pass
    assert third.log == first.log


def test_a_command_goes_with_its_run_unless_it_must_not(tmp_path: Path) -> None:
    """A killed `make` leaves no build behind that works in the next one's folder; apt is left to end."""
    program = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from e2e.steps import step\n"
        "def work(name, outlives):\n"
        "    with step(name, log=Path(name)) as current:\n"
        "        waits = f'echo $$ > {name}.pid; while [ ! -e end ]; do sleep 0.1; done; touch {name}.done'\n"
        "        current.run(['sh', '-c', 'sh -c \"$0\" & wait', waits], timeout=60, outlives=outlives)\n"
        "for name, outlives in (('goes', False), ('stays', True)):\n"
        "    threading.Thread(target=work, args=(name, outlives)).start()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pids = [tmp_path / f"{name}.pid" for name in ("goes", "stays")]
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as run:
        deadline = time.monotonic() + 20
        while not all(file.exists() and file.read_text().endswith("\n") for file in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.kill()
    goes, stays = (Path("/proc", file.read_text().strip()) for file in pids)
    while goes.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stays.exists()
    (tmp_path / "end").touch()
    while not (tmp_path / "stays.done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "goes.done").exists()
