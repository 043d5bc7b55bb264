"""Servers that go with the process that they serve, however that one ends.

    with temporary_home("s3") as home:             # a new directory
        processes.start(home, "weed", [...])       # its processes live as long as it

A watcher, a small process beside each such directory, waits for the owner's end; then it kills what was started in the
directory and removes it. Where the watcher was killed too, the next run (or `make cluster-down`) does its work. Only
processes that `processes.start` wrote down are ever ended, known by pid and start time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster.machine import processes
from e2e.cluster.machine.processes import Identity

ROOT = Path(__file__).parents[2]
LOOK_EVERY_SECONDS = 0.5


@contextlib.contextmanager
def temporary_home(kind: str) -> Iterator[Path]:
    """A new directory for servers of this process; at the end they are killed and it is removed."""
    home = new_home(kind, this_process())
    try:
        yield home
    finally:
        remove_home(home)


def new_home(kind: str, owner: Identity) -> Path:
    """A new directory for servers that live as long as the process `owner`, or until `remove_home`.

    Removes first what earlier owners left behind.
    """
    root = _root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep()
    home = root / f"{kind}-{secrets.token_hex(4)}"
    # Who owns it is written down before there is anything to own.
    processes.save(owner, _record(home))
    home.mkdir(mode=0o700)
    _start_watcher(home)
    return home


def remove_home(home: Path) -> None:
    """Kill every process that was started in a directory, and remove it. One that is gone is no error."""
    going = home.with_name(f"{home.name}.going")
    with contextlib.suppress(FileNotFoundError):
        home.rename(going)  # from here on nothing can be started in it
    for file in sorted(going.glob("run/*.json")):
        if identity := processes.load(file):
            processes.end(identity, grace=0)
    shutil.rmtree(going, ignore_errors=True)
    _record(home).unlink(missing_ok=True)


def sweep() -> None:
    """Remove the directories, and kill the servers, of owners that have ended."""
    for record in sorted(_root().glob("*.json")):
        owner = processes.load(record)
        if owner is not None and not processes.is_alive(owner):
            remove_home(record.with_suffix(""))


def this_process() -> Identity:
    """Who we are, to own something."""
    found = processes.identify(os.getpid())
    assert found is not None, "this process is alive"
    return found


def watch(home: Path) -> None:
    """Return when `home` is gone; remove it when its owner has ended."""
    while (owner := processes.load(_record(home))) is not None:
        if not processes.is_alive(owner):
            remove_home(home)
        time.sleep(LOOK_EVERY_SECONDS)


def _start_watcher(home: Path) -> None:
    """Start `watch` in a process that is nobody's child, so that nobody has to wait for it."""
    command = [sys.executable, "-m", "e2e.cluster.lifetime", str(home)]
    subprocess.run(
        ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        start_new_session=True,
        check=True,
    )


def _root() -> Path:
    return cache_dir().resolve() / "servers"


def _record(home: Path) -> Path:
    """Where the owner of a directory is written down: beside it."""
    return home.with_suffix(".json")


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
