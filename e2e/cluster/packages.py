"""Debian packages, installed where they are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from e2e.cluster.commands import ask, run
from e2e.steps import StepFailed, step

CLUSTER_PACKAGES = (
    "busybox-static",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "iproute2",
    "mount",
    "nftables",
    "runc",
)
SERVICES = ("containerd", "docker-registry")
"""Of these, the ones that come with a service; the cluster runs its own instead."""


def ensure_packages(names: Sequence[str]) -> None:
    """Install those of `names` that are missing, from the machine's own apt sources. Raises StepFailed."""
    missing = [name for name in names if not _installed(name)]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise StepFailed(f"These Debian packages are missing: {', '.join(missing)}. What to do: install them as root.")
    with step(f"Install {', '.join(missing)}", remedy="run `apt-get update` and look at what it says") as installing:
        options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        installing.run(["apt-get", *options, "update"], timeout=400, env=env)
        command = ["apt-get", *options, "install", "-y", "--no-install-recommends", *missing]
        with _services_stay_off([name for name in missing if name in SERVICES]):
            installing.run(command, timeout=900, env=env)


@contextlib.contextmanager
def _services_stay_off(services: Sequence[str]) -> Iterator[None]:
    """Where systemd runs, keep Debian from starting a service only because its package is new here."""
    if not services or not Path("/run/systemd/system").exists():
        yield
        return
    units = [f"{service}.service" for service in services]
    run("systemctl", "mask", "--runtime", *units)
    try:
        yield
    finally:
        run("systemctl", "unmask", "--runtime", *units)


def _installed(name: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    return ask("dpkg-query", "--show", "--showformat=${db:Status-Status}", name) == "installed"
