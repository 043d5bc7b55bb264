"""Who holds apt's and dpkg's locks: another apt, or the upgrades that a fresh machine makes by itself.

apt waits for one of them only (`DPkg::Lock::Timeout` is about dpkg's) and ends at once upon the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.machine.commands import run

LOOK_EVERY_SECONDS = 0.5

_FLOCK = "hhqqi4x"
"""struct flock of 64-bit Linux (fcntl(2)): type, whence, start, length, pid."""

REFUSALS = re.compile("Could not get lock|lock was locked by another process")
"""What apt and dpkg say, in English, when a lock is held."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; `pid` is 0 where it can't be seen from here (another container)."""

    lock: Path
    pid: int

    def __str__(self) -> str:
        command = ""
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        who = f"process {self.pid} ({command[:40] or 'unknown'})" if self.pid else "a process outside this container"
        return f"{who} holds {self.lock}"


def paths() -> list[Path]:
    """The lock files of this machine's apt and dpkg, as apt is set up."""
    folders = [_setting("Dir::State::lists/d"), _setting("Dir::Cache::archives/d")]
    dpkg = dpkg_directory()
    return [*(folder / "lock" for folder in folders), dpkg / "lock-frontend", dpkg / "lock"]


def dpkg_directory() -> Path:
    """Where dpkg keeps its state."""
    return _setting("Dir::State::status/f").parent


def _setting(name: str) -> Path:
    """A path of apt's configuration."""
    (found,) = re.findall(r"^FOUND='(.*)'$", run("apt-config", "shell", "FOUND", name), re.MULTILINE)
    return Path(found)


def holder(locks: list[Path]) -> Holder | None:
    """Who holds the first of `locks` that is held; None when they are free."""
    return next(_held(locks), None)


def wait_until_free(locks: list[Path], say: Callable[[str], None], deadline: float) -> Holder | None:
    """Wait until nobody holds any, or until `deadline` (time.monotonic()); returns who still does then."""
    while (found := holder(locks)) is not None and time.monotonic() < deadline:
        say(f"waiting: {found}")
        time.sleep(LOOK_EVERY_SECONDS)
    return found


def _held(locks: list[Path]) -> Iterator[Holder]:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    for lock in locks:
        with contextlib.suppress(FileNotFoundError), lock.open("rb") as file:
            kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                yield Holder(lock, max(pid, 0))
