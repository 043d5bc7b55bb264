"""Installs the locked Python packages into .venv: `python3 e2e/environment.py e2e|dev`; `lock` resolves them anew.

Runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
MARK = VENV / ".made"
UV_VERSION = "0.13.9"
LINE_EVERY_SECONDS = 8
TIMEOUT_SECONDS = 1800
MINIMUM_PYTHON = (3, 11)
PROJECT = ROOT / "pyproject.toml"
LOCKS = {
    "dev": [
        "--extra=client",
        "--extra=operator",
        "--extra=trainer",
        "--extra=e2e",
        "--extra=dev",
        "--group=build",
        str(PROJECT),
    ],
    "operator": ["--extra=operator", str(PROJECT)],
    "trainer": ["--extra=trainer", str(PROJECT)],
    "e2e": ["--extra=e2e", "--group=build", str(PROJECT)],
    "build": ["--group=build"],
}
"""What each lock holds. The first one is resolved freely, the others agree with it."""


def install(name: str) -> None:
    """Make .venv hold what a lock names; does nothing where it does already. One run at a time."""
    if _holds(name):
        return
    with _alone():
        if not _holds(name):
            _install(name)


def _install(name: str) -> None:
    lock = ROOT / "locks" / f"{name}.txt"
    _make_venv()
    # Both are subsets of one resolution, so the smaller one is added to what is there.
    _run(f"Install the Python packages ({name})", [_uv(), "pip", "install", "--require-hashes", "-r", str(lock)])
    _run("Install the project", [_uv(), "pip", "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    (VENV / f".{name}").write_text(_wanted(name))


def resolve() -> None:
    """Write every lock anew from pyproject.toml."""
    constraints: list[str] = []
    for name, contents in LOCKS.items():
        target = ROOT / "locks" / f"{name}.txt"
        options = ["--universal", "--generate-hashes", "--no-emit-index-url", "--python-version", "3.11", "--quiet"]
        output = ["--custom-compile-command", "make lock", "-o", str(target)]
        _run(
            f"Resolve locks/{name}.txt",
            [_uv(), "pip", "compile", *options, *contents, *constraints, *output],
        )
        constraints = constraints or ["-c", str(target)]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait for another run that works on .venv, or for a command of one that was killed."""
    started = time.monotonic()
    said = 0.0
    with PROJECT.open("rb") as file:
        os.set_inheritable(file.fileno(), True)  # a command that outlives us keeps the lock until its end
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                seconds = time.monotonic() - started
            if seconds > TIMEOUT_SECONDS:
                raise SystemExit(
                    f"Another run has worked on {VENV} for more than {TIMEOUT_SECONDS} s. "
                    f"What to do: stop it; `fuser {PROJECT}` names its process."
                )
            if seconds >= said:
                print(f"Wait for another run that installs into .venv ... {seconds:.0f} s", flush=True)
                said += LINE_EVERY_SECONDS
            time.sleep(0.2)
        yield


def _make_venv() -> None:
    if sys.version_info < MINIMUM_PYTHON:
        raise SystemExit(
            f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed. "
            "What to do: install it and set PYTHON, as in `make demo PYTHON=python3.11`."
        )
    if not _usable():
        _run("Make .venv", [sys.executable, "-m", "venv", "--clear", str(VENV)])
        pip = [str(VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run("Install uv", [*pip, f"uv=={UV_VERSION}"])
        MARK.write_text(_made())


def _usable() -> bool:
    """Whether there is a .venv: neither half of one, nor a moved one (its scripts name the old place)."""
    return MARK.exists() and MARK.read_text() == _made() and (VENV / "bin" / "python").exists()


def _made() -> str:
    """What .venv was made as."""
    return f"{VENV}\nuv {UV_VERSION}\n"


def _uv() -> str:
    return str(VENV / "bin" / "uv")


def _holds(name: str) -> bool:
    """Whether .venv holds what a lock names."""
    return _usable() and any(_stamp(installed) == _wanted(installed) for installed in {name, "dev"})


def _stamp(name: str) -> str:
    """What was installed, as `_wanted` tells it; "" when nothing was."""
    stamp = VENV / f".{name}"
    return stamp.read_text() if stamp.exists() else ""


def _wanted(name: str) -> str:
    """The content of a lock and of pyproject.toml."""
    lock = ROOT / "locks" / f"{name}.txt"
    return hashlib.sha256(lock.read_bytes() + PROJECT.read_bytes()).hexdigest()


def _run(title: str, command: list[str]) -> None:
    """Run a command; says every few seconds that it still does, and shows its output when it fails."""
    print(f"{title} ...", flush=True)
    started = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        cwd=ROOT,
        close_fds=False,
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=LINE_EVERY_SECONDS)
                break
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - started
                if seconds > TIMEOUT_SECONDS:
                    process.kill()
                    raise SystemExit(f"{title}: took more than {TIMEOUT_SECONDS} s and was stopped.") from None
                print(f"{title} ... {seconds:.0f} s", flush=True)
    if process.returncode != 0:
        print(output[-4000:], file=sys.stderr)
        raise SystemExit(f"{title}: failed with status {process.returncode}: {' '.join(command[:4])} ...")
    print(f"{title}: done ({time.monotonic() - started:.1f} s)", flush=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "VIRTUAL_ENV": str(VENV)}


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        resolve()
    elif len(sys.argv) == 2 and sys.argv[1] in ("dev", "e2e"):
        install(sys.argv[1])
    else:
        raise SystemExit(__doc__)
