"""Kubeflow Trainer's and JobSet's controllers and sources, from the Go modules of go/go.mod.

go.sum has the checksums: Go refuses a module that differs.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster.locks import exclusive
from e2e.cluster.machine.commands import run
from e2e.cluster.machine.go_toolchain import go
from e2e.steps import step

MODULE = Path(__file__).parent / "go"
TRAINER, JOBSET = "github.com/kubeflow/trainer/v2", "sigs.k8s.io/jobset"
PACKAGES = {"trainer-controller-manager": f"{TRAINER}/cmd/trainer-controller-manager", "jobset": JOBSET}
GO_VERSION = (1, 24)
BUILD_SECONDS = 1800.0
FETCH_SECONDS = 300.0


def version(module: str) -> str:
    """The pinned version of a module, as in `v2.0.0`."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{MODULE / 'go.mod'} requires no {module}")
    return found[1]


def controllers() -> dict[str, Path]:
    """The commands, by the names of PACKAGES. Raises StepFailed."""
    target = cache_dir() / "bin" / f"kubeflow-trainer-{version(TRAINER)}-jobset-{version(JOBSET)}"
    with exclusive(cache_dir() / "bin" / ".lock", timeout=2 * BUILD_SECONDS):
        if not target.exists():
            _build(target)
    return {command: target / command for command in PACKAGES}


@functools.cache
def source(module: str) -> Path:
    """A module's folder, fetched where it is not there. Raises StepFailed."""
    run(go(GO_VERSION), "-C", MODULE, "mod", "download", module, timeout=FETCH_SECONDS)
    return Path(run(go(GO_VERSION), "-C", MODULE, "list", "-m", "-f", "{{.Dir}}", module).strip())


def _build(target: Path) -> None:
    making = target.with_name(f".{target.name}.building")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    remedy = "if modules could not be fetched, set GOPROXY to a Go module proxy that this machine can reach"
    with step(f"Build Kubeflow Trainer {version(TRAINER)} and JobSet {version(JOBSET)}", remedy=remedy) as building:
        flags = ["-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-gcflags=all=-dwarf=false", "-ldflags=-s -w"]
        building.run(
            [go(GO_VERSION), "build", *flags, "-o", f"{making}{os.sep}", *PACKAGES.values()],
            cwd=MODULE,
            env={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOGC": "400"},
            timeout=BUILD_SECONDS,
        )
        making.rename(target)
