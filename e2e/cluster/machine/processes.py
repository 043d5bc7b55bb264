"""Long-running processes: started with a log, known again by pid and start time, ended for sure.

`start` is for servers, which may outlive who started them (lifetime.py ends those of tests). A command that one waits
for, or a child that a test holds, is started as `children.with_parent(argv)`.
Each server has `<home>/run/<name>.json` (its identity) and `<home>/logs/<name>.log`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.steps import TAIL_LINES, StepFailed, tail

POLL_SECONDS = 0.05
STOP_SECONDS = 10.0

# A server starts once it is written down: nothing is ever left that nobody knows of.
_WHEN_TOLD = ("sh", "-c", 'read -r told && exec "$@" </dev/null', "sh")


@dataclass(frozen=True)
class Identity:
    """One process and no later one that gets the same pid.

    `started` is in clock ticks since boot (field 22 of /proc/PID/stat), `boot` the kernel's id of that boot.
    """

    pid: int
    started: int
    boot: str


def identify(pid: int, proc: Path = Path("/proc")) -> Identity | None:
    """Who has `pid` now; None when nobody has, or it has ended and only waits for its parent (a zombie)."""
    try:
        # The command's name, in parentheses, may hold spaces and parentheses itself.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else Identity(pid, int(started), boot)


def is_alive(identity: Identity, proc: Path = Path("/proc")) -> bool:
    return identify(identity.pid, proc) == identity


def save(identity: Identity, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(identity)))
    partial.rename(file)


def load(file: Path) -> Identity | None:
    """What `save` wrote; None where there is nothing, or half of something."""
    try:
        return Identity(**json.loads(file.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def start(
    home: Path,
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
) -> None:
    """Start a process in the directory `home`, from which `stop` and lifetime.py know it, whoever is alive by then.

    `env` is added to this process's environment.
    """
    log = _log(home, name)
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_WHEN_TOLD, *(str(word) for word in argv)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            cwd=cwd,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as told:
        identity = identify(process.pid)
        if identity is None:
            raise ended(home, name)
        _children[identity] = process
        save(identity, _file(home, name))
        told.write(b"go\n")


def is_running(home: Path, name: str) -> bool:
    identity = load(_file(home, name))
    return identity is not None and is_alive(identity)


def running(home: Path) -> list[str]:
    """The names of the processes of `home` that are alive."""
    return sorted(file.stem for file in (home / "run").glob("*.json") if is_running(home, file.stem))


def wait_until(ready: Callable[[], bool], what: str, *, home: Path, needs: Sequence[str], timeout: float) -> None:
    """Ask `ready` until it says yes.

    Raises StepFailed with the end of the right log when one of the processes `needs` ends meanwhile, or after
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        for name in needs:
            if not is_running(home, name):
                raise ended(home, name)
        if time.monotonic() > deadline:
            raise StepFailed(_with_tail(f"{what} did not come within {timeout:.0f} s.", _log(home, needs[-1])))
        time.sleep(POLL_SECONDS)


def stop(home: Path, *names: str) -> None:
    """End processes in this order, each with SIGTERM, and SIGKILL after STOP_SECONDS. Gone ones are no error."""
    for name in names:
        identity = load(_file(home, name))
        if identity is not None:
            end(identity)
        _file(home, name).unlink(missing_ok=True)


def end(identity: Identity, *, grace: float = STOP_SECONDS) -> None:
    """End one process for sure; it gets `grace` seconds to do so by itself."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            if is_alive(identity) and patience > 0:
                os.kill(identity.pid, number)
        deadline = time.monotonic() + patience
        while is_alive(identity) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    if (child := _children.pop(identity, None)) is not None:
        child.wait(STOP_SECONDS)
    if is_alive(identity):
        raise StepFailed(
            f"Process {identity.pid} does not end, not even by SIGKILL. What to do: see `ps {identity.pid}`."
        )


def ended(home: Path, name: str) -> StepFailed:
    """The exception that says a process ended by itself."""
    return StepFailed(_with_tail(f"{name} ended by itself.", _log(home, name)))


def _with_tail(what: str, log: Path) -> str:
    return "\n".join([what, f"The last lines of {log}:", *(f"  | {line}" for line in tail(log, TAIL_LINES))])


def _file(home: Path, name: str) -> Path:
    return home / "run" / f"{name}.json"


def _log(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


_children: dict[Identity, subprocess.Popen[bytes]] = {}
"""Processes that this very process started: only their parent can clear them away after their end."""
