"""What is measured on: a fresh control plane with an audit log, kwok's nodes, and one product."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.controller import kwok, load
from benchmarks.controller.audit import POLICY, AuditLog
from benchmarks.controller.controllers import Controllers
from benchmarks.controller.products.product import Product
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane, control_plane
from e2e.cluster.machine.commands import run
from e2e.steps import step


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    live: int
    """Jobs that are created at each of the rates."""
    rates: tuple[float, ...]
    finished: int
    namespaces: int
    resync_seconds: float
    """0: nothing is measured of an operator that has nothing to do."""
    rounds: int


@dataclass(frozen=True)
class Cluster:
    """The running parts."""

    plane: ControlPlane
    audit: AuditLog
    product: Product
    controllers: Controllers


@contextmanager
def cluster(make: Callable[[ControlPlane], Product], namespaces: int) -> Iterator[Cluster]:
    """Everything that runs but the product, which is not started yet; all of it is gone at the end."""
    binaries(["kwok", "helm"])
    with audited_control_plane() as (plane, audit):
        product = make(plane)
        with step(f"Install {product.name}'s CRDs and roles, and make nodes and namespaces"):
            product.install()
            populate(plane, namespaces)
        kwok.start(plane, product)
        controllers = Controllers(plane, product)
        try:
            yield Cluster(plane, audit, product, controllers)
        finally:
            controllers.stop()
            kwok.stop(plane)


@contextmanager
def audited_control_plane() -> Iterator[tuple[ControlPlane, AuditLog]]:
    """A control plane whose API server logs who asks for what."""
    with tempfile.TemporaryDirectory(prefix="finetune-benchmark-") as folder:
        policy, log = Path(folder) / "policy.yaml", Path(folder) / "audit.log"
        policy.write_text(yaml.safe_dump(POLICY))
        log.touch()
        flags = {
            "kube-apiserver": [
                f"--audit-policy-file={policy}",
                f"--audit-log-path={log}",
                "--audit-log-maxsize=0",
            ],
            # At its default of 50 requests a second the scheduler would be what is measured.
            "kube-scheduler": ["--kube-api-qps=500", "--kube-api-burst=1000"],
        }
        with control_plane(flags) as plane:
            yield plane, AuditLog(log)


def populate(plane: ControlPlane, namespaces: int) -> None:
    """The nodes, and the teams' namespaces."""
    names = [load.team(number, namespaces) for number in range(namespaces)]
    teams = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    kubectl: list[str | Path] = [binaries(["kubectl"])["kubectl"], "--kubeconfig", plane.kubeconfig]
    run(*kubectl, "create", "-f", "-", input=yaml.safe_dump_all([*teams, *kwok.nodes()]))
