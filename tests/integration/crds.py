"""Our CRDs in a control plane."""

from __future__ import annotations

from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import run

CRDS = Path(__file__).parents[2] / "crds"


def install_crds(plane: ControlPlane) -> None:
    """Create them, and wait until the API server serves them."""
    kubectl: list[str | Path] = [binaries(["kubectl"])["kubectl"], "--kubeconfig", plane.kubeconfig]
    run(*kubectl, "create", "-f", CRDS)
    run(*kubectl, "wait", "--for=condition=Established", "-f", CRDS, "--timeout=30s")
