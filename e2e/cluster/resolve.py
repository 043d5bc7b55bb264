"""Which cluster it is: the user's own, kind, or a Kubernetes of processes on this machine. `up()` brings it up."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from e2e.cache import cache_dir
from e2e.cluster import binaries, kind, lifetime, own
from e2e.cluster.locks import exclusive
from e2e.cluster.places import kubeconfig
from e2e.cluster.registry import REGISTRY
from e2e.steps import StepFailed

LOCK_SECONDS = binaries.WAIT_SECONDS + 600
"""Who brings a cluster up may have to build its programs first."""


class Flavour(enum.Enum):
    EXISTING = "existing"
    KIND = "kind"
    OWN = "own"


@dataclass(frozen=True)
class Cluster:
    """A cluster. Images pushed to `<registry>/...` can be pulled by its nodes under the same name."""

    flavour: Flavour
    kubeconfig: Path
    registry: str


def choose(wanted: str, *, docker: bool, linux_root: bool) -> Flavour:
    """The cluster to use. `wanted` is the environment's CLUSTER, "" when unset.

    `docker`: an engine answers; `linux_root`: this is Linux and we are root. Raises StepFailed where none can be had.
    """
    possible = {Flavour.KIND: docker, Flavour.OWN: linux_root, Flavour.EXISTING: wanted == Flavour.EXISTING.value}
    if wanted not in ("", *(one.value for one in Flavour)):
        known = ", ".join(one.value for one in Flavour)
        raise StepFailed(f"CLUSTER={wanted} is none of: {known}. What to do: correct or unset it.")
    for candidate, can_be in possible.items():
        if can_be and wanted in ("", candidate.value):
            return candidate
    what = f"CLUSTER={wanted}" if wanted else "A local cluster"
    engine, user = "answers" if docker else "does not answer", "root" if linux_root else "not root"
    raise StepFailed(
        f"{what} can't run here: Docker {engine}, and this is {user} on Linux. What to do: start Docker (for kind), "
        "run as root on Linux (for a cluster of our own), or set CLUSTER=existing and KUBECONFIG."
    )


def flavour() -> Flavour:
    """`choose` for this machine, as it is now."""
    return choose(
        os.environ.get("CLUSTER", ""),
        docker=kind.docker_answers(),
        linux_root=_is_linux_root(),
    )


def up() -> Cluster:
    """Bring the cluster up and return it; one that is up and healthy stays as it is. Raises StepFailed."""
    cluster = current()
    if cluster.flavour is Flavour.EXISTING:
        return cluster
    with _locked():
        if cluster.flavour is Flavour.OWN:
            own.up()
        else:
            _remove_own()  # from before there was a Docker engine
            kind.up()
    return cluster


def current() -> Cluster:
    """The cluster that `up` brings up here, whether or not it is up."""
    chosen = flavour()
    if chosen is Flavour.EXISTING:
        return existing(os.environ)
    return Cluster(chosen, kubeconfig(), REGISTRY)


def down() -> None:
    """Remove the cluster that `up` made, of whichever flavour, but for the cache. The user's own is left alone.

    So are the servers of a test that runs; those of one that was killed go too.
    """
    lifetime.sweep()
    with _locked():
        _remove_own()
        if kind.docker_answers():
            kind.down()


def existing(environment: Mapping[str, str]) -> Cluster:
    """The user's cluster: KUBECONFIG names it, REGISTRY the registry (host and path) that it pulls from."""
    config, registry = environment.get("KUBECONFIG", ""), environment.get("REGISTRY", "")
    if not config or not Path(config).is_file():
        raise StepFailed("CLUSTER=existing needs KUBECONFIG. What to do: set it to the path of a kubeconfig file.")
    if not registry:
        raise StepFailed(
            "CLUSTER=existing needs REGISTRY. What to do: set it to a registry (host and path) that you can push to "
            "and the cluster can pull from."
        )
    return Cluster(Flavour.EXISTING, Path(config), registry)


def _remove_own() -> None:
    if _is_linux_root():
        own.down()


def _is_linux_root() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def _locked() -> AbstractContextManager[None]:
    return exclusive(cache_dir() / "cluster.lock", timeout=LOCK_SECONDS)
