"""Kubeflow Trainer and JobSet as processes of this machine, all their webhooks on.

What differs from a cluster: the API server reaches the webhooks at 127.0.0.1 instead of a Service's address, and their
certificates are made here, as cert-manager would.
"""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.controller.audit import JOBSET, KUBEFLOW, TRAINER
from benchmarks.controller.products.accounts import kubeconfig
from benchmarks.controller.products.kubeflow import build, certificates
from benchmarks.controller.products.product import INSTALLED, Launch, Metrics
from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import ask, run
from e2e.cluster.machine.ports import free_ports
from e2e.steps import StepFailed
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import Resource

TRAINER_NAMESPACE, JOBSET_NAMESPACE = "kubeflow-system", "jobset-system"
RUNTIME = "torch-distributed"
WEBHOOKS = frozenset({"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"})
ADMISSION_SECONDS = 30.0
CHECKED_BY_TRAINER = Path("/tmp/k8s-webhook-server/serving-certs/tls.crt")  # noqa: S108
"""Its name is compiled into Kubeflow Trainer, which waits until such a file exists and serves those below TMPDIR."""


class Kubeflow:
    """The rival, as it is released."""

    name = "Kubeflow Trainer"
    family = KUBEFLOW
    jobs = Resource("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs")
    resyncs = False

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._home = plane.home / "kubeflow"
        self._served = self._home / "k8s-webhook-server" / "serving-certs"
        self._trainer_webhook, self._jobset_webhook = free_ports(2)
        self._webhooks: list[dict[str, Any]] = []
        self._jobset_config: dict[str, Any] = {}
        """As its Deployment has it."""
        self._commands = build.controllers()
        self._kubectl: list[str | Path] = [binaries(["kubectl"])["kubectl"], "--kubeconfig", plane.kubeconfig]

    def install(self) -> None:
        certificate = certificates.make(self._served)
        jobset = self._rendered(build.source(build.JOBSET) / "config" / "default")
        (shipped,) = next(one for one in jobset if one["kind"] == "ConfigMap")["data"].values()
        self._jobset_config = yaml.safe_load(shipped)
        documents = [*self._trainer_manifests(), *jobset]
        ports = {TRAINER_NAMESPACE: self._trainer_webhook, JOBSET_NAMESPACE: self._jobset_webhook}
        self._webhooks = [
            reached_here(document, ports, certificate["ca.crt"])
            for document in documents
            if document["kind"] in WEBHOOKS
        ]
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "kubeflow-trainer-webhook-cert", "namespace": TRAINER_NAMESPACE},
            "stringData": certificate,
        }
        for namespace in (TRAINER_NAMESPACE, JOBSET_NAMESPACE):
            run(*self._kubectl, "create", "namespace", namespace)
        chosen = [document for document in documents if document["kind"] in INSTALLED]
        self._create(*chosen, secret, *self._webhooks)
        run(*self._kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    def launches(self, resync_seconds: float) -> tuple[list[Launch], Metrics]:
        trainer_health, trainer_metrics, jobset_health, jobset_metrics = free_ports(4)
        CHECKED_BY_TRAINER.parent.mkdir(parents=True, exist_ok=True)
        CHECKED_BY_TRAINER.touch()
        trainer: list[str | Path] = [
            self._commands["trainer-controller-manager"],
            f"--kubeconfig={kubeconfig(self._plane, TRAINER)}",
            f"--webhook-server-port={self._trainer_webhook}",
            f"--health-probe-bind-address=127.0.0.1:{trainer_health}",
            f"--metrics-bind-address=127.0.0.1:{trainer_metrics}",
            "--metrics-secure=false",
        ]
        config = self._home / "jobset.yaml"
        config.write_text(yaml.safe_dump(self._jobset_config_here(jobset_health, jobset_metrics)))
        # The flags of its Deployment.
        jobset: list[str | Path] = [self._commands["jobset"], f"--config={config}", "--zap-log-level=2"]
        jobset += [f"--kubeconfig={kubeconfig(self._plane, JOBSET)}"]
        environment = {"TMPDIR": str(self._home)}
        controller = {"controller": "trainjob_controller"}
        return [
            Launch("trainer", trainer, f"http://127.0.0.1:{trainer_health}/readyz", environment),
            Launch("jobset", jobset, f"http://127.0.0.1:{jobset_health}/readyz", environment),
        ], Metrics(
            f"http://127.0.0.1:{trainer_metrics}/metrics",
            looks=("controller_runtime_reconcile_total", controller),
            waiting=("workqueue_depth", controller),
        )

    def stopped(self) -> None:
        """JobSet does not release its Lease, and would wait for its end at the next start."""
        run(*self._kubectl, "delete", "leases", "--all", f"--namespace={JOBSET_NAMESPACE}")

    def leads(self, log: Path) -> bool:
        """Kubeflow Trainer v2.0.0 elects no leader."""
        return log.stem != "jobset" or "successfully acquired lease" in log.read_text()

    @contextlib.contextmanager
    def without_admission(self) -> Iterator[None]:
        manifests = yaml.safe_dump_all(self._webhooks)
        run(*self._kubectl, "delete", "-f", "-", input=manifests)
        probe = self._home / "probe.yaml"
        probe.write_text(yaml.safe_dump(self.job("probe", "default")))
        deadline = time.monotonic() + ADMISSION_SECONDS
        # The API server notices a moment later.
        while ask(*self._kubectl, "create", "--dry-run=server", "-f", probe) is None:
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"TrainJobs could not be created {ADMISSION_SECONDS:.0f} s after their webhook was gone."
                )
            time.sleep(0.5)
        yield
        self._create(*self._webhooks)

    async def prepare(self, kube: Kube) -> None:
        runtimes = build.source(build.TRAINER) / "manifests" / "base" / "runtimes"
        run(*self._kubectl, "create", "-f", runtimes / f"{RUNTIME.replace('-', '_')}.yaml")

    def job(self, name: str, namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": self.jobs.api_version,
            "kind": self.jobs.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "runtimeRef": {"name": RUNTIME},
                "trainer": {
                    "image": "example.com/trainer:1",
                    "args": [f"s3://data/{name}/train.jsonl", f"s3://data/{name}/valid.jsonl"],
                    "numNodes": 1,
                    "resourcesPerNode": {"requests": {"cpu": "100m", "memory": "1Gi"}},
                },
            },
        }

    def has_succeeded(self, job: dict[str, Any]) -> bool:
        conditions = job.get("status", {}).get("conditions", [])
        met = {condition["type"] for condition in conditions if condition["status"] == "True"}
        if "Failed" in met:
            raise StepFailed(f"TrainJob {job['metadata']['name']} has failed: {conditions}")
        return "Complete" in met

    def _create(self, *documents: dict[str, Any]) -> None:
        run(*self._kubectl, "create", "-f", "-", input=yaml.safe_dump_all(documents))

    def _trainer_manifests(self) -> list[dict[str, Any]]:
        """Its overlay `manager` but for JobSet, which that overlay takes from a release on the web."""
        base = os.path.relpath(build.source(build.TRAINER) / "manifests" / "base", self._home)
        resources = [f"{base}/{folder}" for folder in ("crds", "rbac", "webhook")]
        overlay = {"namespace": TRAINER_NAMESPACE, "resources": resources}
        (self._home / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return self._rendered(self._home)

    def _rendered(self, folder: Path) -> list[dict[str, Any]]:
        return [document for document in yaml.safe_load_all(run(*self._kubectl, "kustomize", folder)) if document]

    def _jobset_config_here(self, health: int, metrics: int) -> dict[str, Any]:
        """The configuration of its Deployment, with this machine's ports, and certificates from elsewhere."""
        election = {**self._jobset_config["leaderElection"], "resourceNamespace": JOBSET_NAMESPACE}
        return {
            **self._jobset_config,
            "leaderElection": election,
            "webhook": {"host": "127.0.0.1", "port": self._jobset_webhook, "certDir": str(self._served)},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
            "metrics": {"bindAddress": f"127.0.0.1:{metrics}"},
            "internalCertManagement": {"enable": False},
        }


def reached_here(configuration: dict[str, Any], ports: dict[str, int], authority: str) -> dict[str, Any]:
    """A webhook configuration whose webhooks answer on this machine, each at the port of its Service's namespace."""
    webhooks = []
    for webhook in configuration["webhooks"]:
        service = webhook["clientConfig"]["service"]
        url = f"https://127.0.0.1:{ports[service['namespace']]}{service['path']}"
        bundle = base64.b64encode(authority.encode()).decode()
        webhooks.append({**webhook, "clientConfig": {"url": url, "caBundle": bundle}})
    return {**configuration, "webhooks": webhooks}
