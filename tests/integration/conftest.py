"""What integration tests share: one control plane for the session, with our CRDs in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.binaries import binaries
from e2e.cluster.commands import run
from e2e.cluster.control_plane import ControlPlane, control_plane

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A real API server, controller-manager and scheduler, without nodes: nothing runs a Pod."""
    with control_plane() as plane:
        kubectl: list[str | Path] = [binaries(["kubectl"])["kubectl"], "--kubeconfig", plane.kubeconfig]
        run(*kubectl, "create", "-f", CRDS)
        run(*kubectl, "wait", "--for=condition=Established", "-f", CRDS, "--timeout=30s")
        yield plane
