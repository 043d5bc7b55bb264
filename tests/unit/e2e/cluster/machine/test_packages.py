"""Packages on a machine that has none of them: a root of its own, real apt and dpkg, real locks of other processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e import steps
from e2e.cluster.machine import apt_locks, packages
from e2e.cluster.machine.apt_locks import Holder
from e2e.cluster.machine.packages import ensure_packages
from e2e.steps import StepFailed

pytestmark = pytest.mark.skipif(
    shutil.which("apt-get") is None or os.geteuid() != 0, reason="needs apt, and root for dpkg"
)

LISTS, ARCHIVES = "var/lib/apt/lists/lock", "var/cache/apt/archives/lock"
FRONTEND, DPKG = "var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@dataclass(frozen=True)
class Machine:
    """A fresh machine: its root, and where its one package source lies."""

    root: Path
    source: Path

    def has(self, package: str) -> bool:
        return (self.root / "usr/share" / package).exists()

    @contextlib.contextmanager
    def lock_held(self, lock: str, seconds: float) -> Iterator[int]:
        """Another process holds a lock for that long, or as long as the context; its pid."""
        command = [sys.executable, "-S", "-c", HOLD, str(self.root / lock), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder.pid
            holder.kill()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    root, source = tmp_path / "root", tmp_path / "source"
    for folder in (
        *("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/log/apt"),
        *("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg/updates"),
    ):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    source.mkdir()
    index = [_package(source, name, tmp_path / "made" / name) for name in ("ft-one", "ft-two")]
    (source / "Packages").write_text("\n".join(index))
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{source} ./\n")
    settings = {
        "Dir": root,
        "Dir::State::status": root / "var/lib/dpkg/status",
        "APT::Sandbox::User": "root",
        # As if the source were far away.
        "APT::Update::Pre-Invoke::": "sleep 0.5",
    }
    (tmp_path / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("DPKG_ROOT", str(root))
    monkeypatch.setenv("DPKG_ADMINDIR", str(root / "var/lib/dpkg"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(steps, "PLAIN_LINE_EVERY_SECONDS", 0.2)
    return Machine(root, source)


def _package(source: Path, name: str, folder: Path) -> str:
    """Make a package that holds one file; returns its entry of the index."""
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\n"
    control += "Description: a package of a test\n"
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "DEBIAN/control").write_text(control)
    (folder / "usr/share").mkdir(parents=True)
    (folder / "usr/share" / name).write_text(name)
    file = source / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", folder, file], check=True, capture_output=True)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: ./{file.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def test_two_threads_of_one_run_install_at_once(machine: Machine) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ensure_packages, [["ft-one"], ["ft-two", "ft-one"]]))
    assert machine.has("ft-one")
    assert machine.has("ft-two")


def test_two_runs_install_at_once(machine: Machine) -> None:
    program = "import sys; from e2e.cluster.machine.packages import ensure_packages; ensure_packages(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", program, name], env=environment, stderr=subprocess.PIPE, text=True)
        for name in ("ft-one", "ft-two")
    ]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert machine.has("ft-one")
    assert machine.has("ft-two")


@pytest.mark.parametrize("lock", [LISTS, ARCHIVES, FRONTEND, DPKG])
def test_whoever_holds_a_lock_is_waited_for_and_named(
    lock: str, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with machine.lock_held(lock, seconds=1.5) as pid:
        ensure_packages(["ft-one"])
    assert machine.has("ft-one")
    said = capsys.readouterr().err
    assert f"waiting: process {pid} ({sys.executable}" in said
    assert f" holds {machine.root}"[:40] in said


def test_waiting_has_an_end_that_says_who_and_what_to_do(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "LOCK_SECONDS", 1.0)
    with machine.lock_held(LISTS, seconds=60) as pid, pytest.raises(StepFailed) as failed:
        ensure_packages(["ft-one"])
    assert f"Install ft-one: for 1 s, process {pid}" in str(failed.value)
    assert "What to do: wait for that process to end, or stop it" in str(failed.value)


@pytest.mark.parametrize("lock", [LISTS, ARCHIVES])
def test_who_takes_a_lock_just_before_apt_does_is_waited_for_too(
    lock: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Holder | None] = [None, None, None]
    look = apt_locks.holder
    monkeypatch.setattr(apt_locks, "holder", lambda locks: seen.pop() if seen else look(locks))
    with machine.lock_held(lock, seconds=3):
        ensure_packages(["ft-one"])
    assert machine.has("ft-one")


def test_what_a_killed_dpkg_left_is_put_in_order(machine: Machine) -> None:
    (machine.root / "var/lib/dpkg/updates/0000").write_text("Package: ft-two\nStatus: install ok not-installed\n\n")
    ensure_packages(["ft-one"])
    assert machine.has("ft-one")


def test_a_source_that_does_not_answer_is_reported_at_once(machine: Machine) -> None:
    shutil.rmtree(machine.source)
    started = time.monotonic()
    with pytest.raises(
        StepFailed, match=r"Install ft-one: apt-get ended with status 100(.|\n)*What to do: run `apt-get"
    ):
        ensure_packages(["ft-one"])
    assert time.monotonic() - started < 30


def test_what_is_installed_needs_no_apt(machine: Machine) -> None:
    ensure_packages(["ft-one"])
    with machine.lock_held(LISTS, seconds=60):
        ensure_packages(["ft-one"])
