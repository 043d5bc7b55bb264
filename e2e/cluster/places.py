"""Where the local cluster keeps its files. One fixed place, so that any clone finds what another one left running."""

from __future__ import annotations

from pathlib import Path

from e2e.cache import cache_dir

RUN = Path("/run/finetune-operator")
"""Sockets and mounts: a Unix socket's path may have 107 characters, and a home directory's may be longer."""


def cluster_home() -> Path:
    """Everything of the running cluster; gone after `down`."""
    return cache_dir().resolve() / "cluster"


def kubeconfig() -> Path:
    """The administrator's kubeconfig of the local cluster, of whichever kind it is."""
    return cluster_home() / "kubeconfig"


def containerd_root() -> Path:
    """Images and their unpacked layers; kept between clusters."""
    return cache_dir().resolve() / "containerd"


def registry_root() -> Path:
    """What was pushed to the local registry; kept between clusters."""
    return cache_dir().resolve() / "registry"
