"""A process is known again by pid, start time and boot; nobody else with its pid is ever taken for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.cluster.machine import processes
from e2e.cluster.machine.processes import Identity
from e2e.steps import StepFailed

BOOT = "0b7ed4d1"


def fake_proc(
    root: Path, pid: int, *, name: str = "etcd", state: str = "S", started: int = 500, boot: str = BOOT
) -> Path:
    """A /proc with one process in it; the fields are those of proc(5)."""
    (root / str(pid)).mkdir(parents=True)
    fields = [state, *["0"] * 18, str(started), "0", "0"]
    (root / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    (root / "sys/kernel/random").mkdir(parents=True)
    (root / "sys/kernel/random/boot_id").write_text(f"{boot}\n")
    return root


@pytest.mark.parametrize(
    ("now", "alive"),
    [
        pytest.param({}, True, id="the same process"),
        pytest.param({"started": 501}, False, id="another process got the pid"),
        pytest.param({"boot": "another"}, False, id="same pid and time, but after a reboot"),
        pytest.param({"state": "Z"}, False, id="ended, not yet cleared away by its parent"),
        pytest.param({"name": "a) S (b"}, True, id="a name that looks like more fields"),
    ],
)
def test_a_process_is_alive(now: dict[str, str], alive: bool, tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, 42, **now)  # type: ignore[arg-type]
    assert processes.is_alive(Identity(42, 500, BOOT), proc) is alive


def test_nobody_has_the_pid(tmp_path: Path) -> None:
    assert not processes.is_alive(Identity(43, 500, BOOT), fake_proc(tmp_path, 42))


@pytest.mark.parametrize("content", [None, "", '{"pid": 1', '{"pid": 1}'])
def test_a_broken_pid_file_names_no_process(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "etcd.json"
    if content is not None:
        file.write_text(content)
    assert processes.load(file) is None


def test_a_started_process_runs_until_it_is_stopped(tmp_path: Path) -> None:
    processes.start(tmp_path, "sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
    assert processes.running(tmp_path) == ["sleeper"]
    processes.stop(tmp_path, "sleeper")
    assert processes.running(tmp_path) == []


def test_a_process_that_ignores_sigterm_is_ended_too(tmp_path: Path) -> None:
    ignoring = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    )
    processes.start(tmp_path, "stubborn", [sys.executable, "-c", ignoring])
    log = tmp_path / "logs/stubborn.log"
    processes.wait_until(lambda: "on" in log.read_text(), "It", home=tmp_path, needs=["stubborn"], timeout=20)
    identity = processes.load(tmp_path / "run/stubborn.json")
    assert identity is not None
    processes.end(identity, grace=0.2)
    assert not processes.is_alive(identity)


def test_stopping_spares_a_stranger_with_the_same_pid(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        now = processes.identify(stranger.pid)
        assert now is not None
        processes.save(Identity(now.pid, now.started - 1, now.boot), tmp_path / "run/etcd.json")
        processes.stop(tmp_path, "etcd")
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_ends_too_early_is_reported_with_its_log(tmp_path: Path) -> None:
    processes.start(tmp_path, "failing", [sys.executable, "-c", "import time; time.sleep(.2); print('port is taken')"])
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"failing ended by itself(.|\n)*port is taken"):
        processes.wait_until(lambda: False, "It", home=tmp_path, needs=["failing"], timeout=20)
    assert time.monotonic() - started < 10


def test_waiting_has_an_end(tmp_path: Path) -> None:
    processes.save(processes.identify(os.getpid()), tmp_path / "run/me.json")  # type: ignore[arg-type]
    with pytest.raises(StepFailed, match="The answer did not come within 0 s"):
        processes.wait_until(lambda: False, "The answer", home=tmp_path, needs=["me"], timeout=0.1)
