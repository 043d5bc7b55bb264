"""The control groups that hold all containers of the cluster, and so find every process of theirs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.steps import StepFailed

NAME = "finetune-operator"
KILL_SECONDS = 10.0


def create_cgroup() -> None:
    """Make the group in every hierarchy of cgroup v1, or where there is none in that of v2, for kubelet to use."""
    hierarchies = list(_hierarchies())
    version1 = [root for root, version in hierarchies if version == 1]
    for root in version1:
        (root / NAME).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (root / NAME / setting).exists():  # a new cpuset is empty, and takes no process until it is not
                (root / NAME / setting).write_text((root / setting).read_text())
    for root in [] if version1 else [root for root, _ in hierarchies]:
        controllers = (root / "cgroup.controllers").read_text().split()
        _enable(root, controllers)
        (root / NAME).mkdir(exist_ok=True)
        _enable(root / NAME, controllers)


def remove_cgroup() -> None:
    """Kill every process in the group and remove it."""
    deadline = time.monotonic() + KILL_SECONDS
    while pids := set(_processes()):
        if time.monotonic() > deadline:
            raise StepFailed(f"Processes {sorted(pids)} of the cluster's containers do not end by SIGKILL.")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for group in _groups():
        with contextlib.suppress(FileNotFoundError):
            _remove_when_free(group, deadline)


def _remove_when_free(group: Path, deadline: float) -> None:
    while True:
        try:
            group.rmdir()
        except OSError as error:  # busy while the kernel still clears away a process
            if isinstance(error, FileNotFoundError) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _hierarchies() -> Iterator[tuple[Path, int]]:
    """The mount point of each hierarchy and its version (proc(5), /proc/PID/mountinfo)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if (kind := right.split()[0]) in ("cgroup", "cgroup2"):
            yield Path(left.split()[4]), 2 if kind == "cgroup2" else 1


def _enable(group: Path, controllers: list[str]) -> None:
    for controller in controllers:
        with contextlib.suppress(OSError):  # one that can't be had here; kubelet says whether it misses it
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _groups() -> Iterator[Path]:
    """All groups below ours and ours itself, innermost first."""
    for root, _ in _hierarchies():
        for directory, _, _ in os.walk(root / NAME, topdown=False):
            yield Path(directory)


def _processes() -> Iterator[int]:
    for group in _groups():
        with contextlib.suppress(OSError):
            yield from (int(pid) for pid in (group / "cgroup.procs").read_text().split())
