"""How a product's process signs in: with a token of its ServiceAccount, as a Pod does."""

from __future__ import annotations

from pathlib import Path

import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import run

VALID_FOR = "24h"


def kubeconfig(plane: ControlPlane, user: str) -> Path:
    """A kubeconfig for a service account that exists, `system:serviceaccount:NAMESPACE:NAME`."""
    _, _, namespace, name = user.split(":")
    kubectl = binaries(["kubectl"])["kubectl"]
    asked = ["create", "token", name, f"--namespace={namespace}", f"--duration={VALID_FOR}"]
    token = run(kubectl, "--kubeconfig", plane.kubeconfig, *asked).strip()
    path = plane.home / "kubeconfigs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    cluster = {"server": plane.server, "certificate-authority": str(plane.authority.certificate)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path
