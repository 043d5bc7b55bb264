"""finetune-operator, with the CRDs and the rights of its chart."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.controller.audit import OPERATOR, OURS
from benchmarks.controller.products.accounts import kubeconfig
from benchmarks.controller.products.product import INSTALLED, Launch, Metrics
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import run
from e2e.cluster.machine.ports import free_ports
from e2e.steps import StepFailed
from finetune_api.base import API_VERSION
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import DATASETS, FINE_TUNE_CLASSES, FINE_TUNE_JOBS

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "finetune-operator"
RELEASE, NAMESPACE = "finetune-operator", "finetune-system"
CLASS = "benchmark"
DATASET: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": "Dataset",
    "metadata": {"name": "tickets"},
    "spec": {
        "className": CLASS,
        "source": {"uri": "s3://data/tickets.jsonl"},
        "split": {"validationPercent": 9},
    },
}
"""Of each team."""
BUILT_SECONDS = 60.0


class Ours:
    """The operator of this working tree."""

    name = "finetune-operator"
    family = OURS
    jobs = FINE_TUNE_JOBS
    resyncs = True

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def install(self) -> None:
        tools = binaries(["helm", "kubectl"])
        kubectl: list[str | Path] = [tools["kubectl"], "--kubeconfig", self._plane.kubeconfig]
        run(*kubectl, "create", "namespace", NAMESPACE)
        rendered = run(tools["helm"], "template", RELEASE, CHART, "--namespace", NAMESPACE)
        chart = [document for document in yaml.safe_load_all(rendered) if document and document["kind"] in INSTALLED]
        run(*kubectl, "create", "-f", "-", input=yaml.safe_dump_all(chart))
        run(*kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def launches(self, resync_seconds: float) -> tuple[list[Launch], Metrics]:
        health, metrics = free_ports(2)
        flags = {
            "kubeconfig": kubeconfig(self._plane, OPERATOR),
            "namespace": NAMESPACE,
            "health-port": health,
            "metrics-port": metrics,
            "trainer-image": "example.com/trainer:1",
            "resync-seconds": f"{resync_seconds:g}",
        }
        argv = [sys.executable, "-m", "finetune_operator", "run", "--leader-election"]
        argv += [f"--{name}={value}" for name, value in flags.items()]
        source = {"PYTHONPATH": str(ROOT / "operator" / "src")}
        launch = Launch("operator", argv, f"http://127.0.0.1:{health}/readyz", source)
        return [launch], Metrics(
            f"http://127.0.0.1:{metrics}/metrics",
            looks=("finetune_operator_reconciliations_total", {"kind": "FineTuneJob", "result": "ok"}),
            waiting=("finetune_operator_queue_depth", {}),
        )

    def stopped(self) -> None:
        """It has released its Lease."""

    def leads(self, log: Path) -> bool:
        """It is ready once it leads and has listed everything."""
        return log.exists()

    @contextlib.contextmanager
    def without_admission(self) -> Iterator[None]:
        """It has no webhook."""
        yield

    async def prepare(self, kube: Kube) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "FineTuneClass",
            "metadata": {"name": CLASS},
            "spec": {
                "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
                "resources": {"cpu": "100m", "memory": "1Gi"},
            },
        }
        await kube.create(FINE_TUNE_CLASSES, None, body)

    def job(self, name: str, namespace: str) -> dict[str, Any]:
        return job(name, namespace)

    def has_succeeded(self, job: dict[str, Any]) -> bool:
        status = job.get("status", {})
        if status.get("phase") in ("Failed", "Cancelled"):
            raise StepFailed(f"FineTuneJob {job['metadata']['name']} has failed: {status.get('conditions')}")
        return bool(status.get("phase") == "Succeeded")


class OnRevisions(Ours):
    """The same with jobs on a revision of their team's Dataset, whose findings preflight takes over."""

    name = "finetune-operator, Datasets"

    async def prepare(self, kube: Kube) -> None:
        await super().prepare(kube)
        for team in self._teams():
            await kube.create(DATASETS, team, DATASET)
        async with asyncio.timeout(BUILT_SECONDS):
            for team in self._teams():
                await _built(kube, team)

    def job(self, name: str, namespace: str) -> dict[str, Any]:
        made = job(name, namespace)
        splits = ("training", "validation")
        made["spec"]["dataset"] = {
            split: {"datasetRef": {"name": DATASET["metadata"]["name"], "split": split}} for split in splits
        }
        return made

    def _teams(self) -> list[str]:
        kubectl: list[str | Path] = [binaries(["kubectl"])["kubectl"], "--kubeconfig", self._plane.kubeconfig]
        names = run(*kubectl, "get", "namespaces", "--output=jsonpath={.items[*].metadata.name}").split()
        return [name for name in names if name.startswith("team-")]


async def _built(kube: Kube, team: str) -> None:
    """Wait until the team's Dataset has its revision. Raises StepFailed where it has failed."""
    while True:
        found = await kube.get(DATASETS, team, DATASET["metadata"]["name"])
        status = {} if found is None else found.get("status", {})
        if status.get("phase") == "Failed":
            raise StepFailed(f"The Dataset of {team} has failed: {status.get('conditions')}")
        if status.get("phase") == "Succeeded":
            return
        await asyncio.sleep(0.2)


def job(name: str, namespace: str) -> dict[str, Any]:
    """A FineTuneJob as a user writes it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "className": CLASS,
            "model": {"uri": "s3://models/base"},
            "adapter": {"type": "LoRA", "lora": {"rank": 16, "alpha": 32}},
            "dataset": {
                "training": {"uri": f"s3://data/{name}/train.jsonl"},
                "validation": {"uri": f"s3://data/{name}/valid.jsonl"},
            },
            "hyperparameters": {"epochs": 3, "batchSize": 16},
            "checkpoints": {"keep": 3, "best": {"metric": "EvalLoss", "goal": "Minimize"}},
        },
    }
