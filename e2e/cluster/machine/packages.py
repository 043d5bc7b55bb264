"""Debian packages, installed where they are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster.locks import exclusive
from e2e.cluster.machine import apt_locks
from e2e.cluster.machine.commands import ask, run
from e2e.steps import Step, StepFailed, step

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

OPTIONS = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}

LOCK_SECONDS = 1200.0
"""A fresh machine's own upgrades may take that long."""

UPDATE_SECONDS = 400.0
INSTALL_SECONDS = 1800.0
TURN_SECONDS = LOCK_SECONDS + UPDATE_SECONDS + INSTALL_SECONDS


def ensure_packages(names: Sequence[str]) -> None:
    """Install those of `names` that are missing, from the machine's own apt sources. Raises StepFailed.

    One at a time for all of this machine's runs and their threads; whoever else holds apt's locks is waited for.
    """
    missing = _missing(names)
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise StepFailed(f"These Debian packages are missing: {', '.join(missing)}. What to do: install them as root.")
    with exclusive(cache_dir() / "packages.lock", timeout=TURN_SECONDS, what="Wait for other packages to install"):
        if missing := _missing(names):
            _install(missing)


def _install(missing: Sequence[str]) -> None:
    remedy = "run `apt-get update` and look at what it says"
    with step(f"Install {', '.join(missing)}", remedy=remedy) as installing:
        _run(installing, ["apt-get", *OPTIONS, "update"], UPDATE_SECONDS)
        if _interrupted():
            _run(installing, ["dpkg", "--configure", "-a"], INSTALL_SECONDS)
        command = ["apt-get", *OPTIONS, "install", "-y", "--no-install-recommends", *missing]
        with _services_stay_off([name for name in missing if name in SERVICES]):
            _run(installing, command, INSTALL_SECONDS)


def _run(installing: Step, command: list[str], timeout: float) -> None:
    """Run a command of apt or dpkg once nobody else holds their locks, and again if someone was quicker."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        holder = apt_locks.wait_until_free(apt_locks.paths(), installing.say, deadline)
        if holder is not None:
            installing.remedy = "wait for that process to end, or stop it, and run this again"
            raise installing.failure(f"for {LOCK_SECONDS:.0f} s, {holder}")
        before = installing.log.stat().st_size
        try:
            # Killed half way, dpkg would leave a mess; so it is left to end by itself.
            installing.run(command, timeout=timeout, env=ENVIRONMENT, outlives=True)
        except StepFailed:
            said = installing.log.read_bytes()[before:].decode(errors="replace")
            if not apt_locks.REFUSALS.search(said) or time.monotonic() > deadline:
                raise
            time.sleep(apt_locks.LOOK_EVERY_SECONDS)
        else:
            return


def _interrupted() -> bool:
    """Whether a dpkg was killed at its work, upon which apt refuses any."""
    return any(entry.name.isdigit() for entry in apt_locks.dpkg_directory().glob("updates/*"))


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


def _missing(names: Sequence[str]) -> list[str]:
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    return ask("dpkg-query", "--show", "--showformat=${db:Status-Status}", name) == "installed"
