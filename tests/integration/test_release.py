"""An installation of the chart that was killed half way does not stand in the way of the next."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane, control_plane
from e2e.cluster.machine.children import with_parent
from e2e.release import CHART, NAMESPACE, RELEASE, forget_interrupted

SECONDS = 60.0


def upgrade(plane: ControlPlane, *options: str) -> list[str | Path]:
    """What `make demo` calls, which without nodes waits in vain for the operator."""
    place = ("--kubeconfig", plane.kubeconfig, "--namespace", NAMESPACE)
    values = ("--set=image.repository=example.com/operator", "--set=trainerImage=example.com/trainer:1")
    command = [binaries(["helm"])["helm"], "upgrade", RELEASE, CHART, "--install", "--create-namespace"]
    return [*command, *place, *values, *options]


def test_a_killed_installation_is_taken_up_by_the_next() -> None:
    """20 s or so: with a control plane of its own, as the chart brings the CRDs that others share."""
    kubectl = binaries(["kubectl"])["kubectl"]
    with control_plane() as plane:
        deployments = [kubectl, "--kubeconfig", plane.kubeconfig, "-n", NAMESPACE, "get", "deployment", "-o", "name"]
        deadline = time.monotonic() + SECONDS
        with subprocess.Popen(with_parent(upgrade(plane, "--wait", "--timeout=60s"))) as killed:
            while not subprocess.run(deployments, capture_output=True, check=False).stdout:
                assert time.monotonic() < deadline and killed.poll() is None
                time.sleep(0.2)
            killed.kill()
        again = subprocess.run(upgrade(plane), capture_output=True, text=True, timeout=SECONDS, check=False)
        assert "another operation" in again.stderr
        forget_interrupted(plane.kubeconfig)
        subprocess.run(upgrade(plane), capture_output=True, timeout=SECONDS, check=True)
