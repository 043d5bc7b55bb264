"""rclone, the rival of the transfers: built from the Go module proxy at the version of rclone/go.mod, and kept."""

from __future__ import annotations

import re
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster.locks import exclusive
from e2e.cluster.machine.go_toolchain import go
from e2e.steps import step

MODULE = Path(__file__).parent / "rclone"
GO_VERSION = (1, 26)
BUILD_SECONDS = 900.0


def version() -> str:
    """The pinned version, as in `v1.76.0`."""
    found = re.search(r"github\.com/rclone/rclone (v\S+)", (MODULE / "go.mod").read_text())
    if not found:
        raise LookupError(f"{MODULE / 'go.mod'} requires no rclone")
    return found[1]


def rclone() -> Path:
    """The program; built first, where it is not there. Raises StepFailed."""
    target = cache_dir() / "bin" / f"rclone-{version()}" / "rclone"
    with exclusive(cache_dir() / "bin" / ".lock", timeout=BUILD_SECONDS):
        if not target.exists():
            made = target.with_name(".rclone.building")
            target.parent.mkdir(parents=True, exist_ok=True)
            remedy = "if modules could not be fetched, set GOPROXY to a Go module proxy that this machine can reach"
            with step(f"Build rclone {version()}", remedy=remedy) as building:
                building.run(
                    [go(GO_VERSION), "build", "-v", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o", made, "."],
                    cwd=MODULE,
                    env={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"},
                    timeout=BUILD_SECONDS,
                )
                made.rename(target)
    return target
