"""What is measured on: a control plane with an audit log, kwok's nodes, and an operator with the chart's rights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.controller import kwok, load
from benchmarks.controller.audit import POLICY, AuditLog
from benchmarks.controller.operator_process import ROOT, Operator
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane, control_plane
from e2e.cluster.machine import processes
from e2e.cluster.machine.commands import run
from e2e.steps import StepFailed, step, tail

CHART = ROOT / "charts" / "finetune-operator"
RELEASE, NAMESPACE = "finetune-operator", "finetune-system"
INSTALLED = frozenset(
    {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"}
)
LOG_LINES = 10


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    live: int
    finished: int
    per_second: float
    namespaces: int
    resync_seconds: float


@dataclass(frozen=True)
class Cluster:
    """The running parts."""

    plane: ControlPlane
    audit: AuditLog
    operator: Operator


@contextmanager
def cluster(size: Size) -> Iterator[Cluster]:
    """Everything that runs but the operator, which is not started yet; all of it is gone at the end."""
    binaries(["kwok", "helm"])
    with audited_control_plane() as (plane, audit):
        install(plane, size)
        kwok.start(plane)
        in_cluster = ["--leader-election", f"--namespace={NAMESPACE}"]
        operator = Operator(plane, [*in_cluster, f"--resync-seconds={size.resync_seconds:g}"])
        try:
            yield Cluster(plane, audit, operator)
        finally:
            operator.stop()
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


def install(plane: ControlPlane, size: Size) -> None:
    """The CRDs and the rights that the chart gives the operator, the nodes, and the teams' namespaces."""
    tools = binaries(["helm", "kubectl"])
    kubectl: list[str | Path] = [tools["kubectl"], "--kubeconfig", plane.kubeconfig]
    with step("Install the chart's CRDs and roles, and make nodes and namespaces"):
        rendered = run(tools["helm"], "template", RELEASE, CHART, "--namespace", NAMESPACE)
        chart = [document for document in yaml.safe_load_all(rendered) if document and document["kind"] in INSTALLED]
        crds = [document for document in chart if document["kind"] == "CustomResourceDefinition"]
        names = [NAMESPACE, *(load.team(number, size.namespaces) for number in range(size.namespaces))]
        namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
        for documents in (crds, namespaces, [document for document in chart if document not in crds], kwok.nodes()):
            run(*kubectl, "create", "-f", "-", input=yaml.safe_dump_all(documents))
        run(*kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")


def stuck(found: Cluster, what: str) -> StepFailed:
    """The exception that says what did not happen, with the last lines of those who should have seen to it."""
    said = [*tail(found.operator.log, LOG_LINES), *tail(kwok.log(found.plane), LOG_LINES)]
    return StepFailed("\n".join([f"{what}. The operator's and kwok's last lines:", *(f"  | {line}" for line in said)]))


def processes_peak(plane: ControlPlane) -> dict[str, int]:
    """Peak resident bytes of the other processes, for comparison."""
    found = {}
    for name in processes.running(plane.home):
        identity = processes.load(plane.home / "run" / f"{name}.json")
        if identity is None:
            continue
        status = Path(f"/proc/{identity.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        found[name] = int(peak.split()[1]) * 1024
    return found
