"""When nothing changes, nothing is written, and what the operator knows is not asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.ports import free_ports
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.runtime import worker
from finetune_operator.runtime.manager import run
from finetune_operator.settings import Settings
from tests.integration.operator import played
from tests.integration.operator.api import Api, wait_for
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, JOB, evaluation_report, starts_training, trains
from tests.integration.operator.process import OperatorProcess

RESYNC_SECONDS = 0.5


async def test_two_resyncs_write_nothing(
    cluster: ControlPlane, api: Api, operator: OperatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second operator, in this process, which looks at everything again twice a second."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    await asyncio.to_thread(everything_there_can_be, api)
    requests, looks = Requests(api.namespace), Looks(api.namespace)
    monkeypatch.setattr(Kube, "_request", requests.observed(Kube._request))
    monkeypatch.setattr(worker, "reconcile", looks.observed(worker.reconcile))
    before = versions(api)
    health, metrics, progress = free_ports(3)
    settings = Settings(
        kubeconfig=cluster.kubeconfig,
        resync_seconds=RESYNC_SECONDS,
        health_port=health,
        metrics_port=metrics,
        progress_port=progress,
        progress_url=operator.progress_url,  # of one release, as the certificate
        tls_directory=operator.ca.parent,
        trainer_image="example.com/trainer:1",
    )
    stop = asyncio.Event()
    running = asyncio.create_task(run(settings, stop))
    await asyncio.wait_for(looks.every_parent_was_looked_at_again, 40)
    stop.set()
    await running
    assert requests.writes == []
    assert versions(api) == before
    namespace = f"namespaces/{api.namespace}"
    asked = {f"/apis/finetune.dev/v1alpha1/{namespace}/{kind.lower()}s/{name}" for kind, name in FINISHED}
    replica_sets = f"/apis/apps/v1/{namespace}/replicasets"  # not watched
    assert set(requests.reads) <= {*asked, replica_sets}, "what is in memory is not asked for"


class Requests:
    """What this process's operator asks of the API server for the objects of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.writes: list[str] = []
        self.reads: list[str] = []
        self._namespace = f"/namespaces/{namespace}/"

    def observed(self, request: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """`Kube._request`, seen."""

        async def seen(kube: Kube, method: str, path: str, **options: Any) -> Any:
            if self._namespace in path:
                (self.reads if method == "GET" else self.writes).append(path)
            return await request(kube, method, path, **options)

        return seen


class Looks:
    """How often this process's operator looked at each object of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.every_parent_was_looked_at_again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._namespace = namespace
        self._looks = dict.fromkeys(PARENTS, 0)

    def observed(self, reconcile: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """`reconcile`, seen when it is done."""

        async def seen(kube: Kube, kind: Kind, key: ObjectKey) -> Any:
            again = await reconcile(kube, kind, key)
            if key.namespace == self._namespace:
                self._looks[key.kind, key.name] += 1
            # Once for the first list, and once for each resync; what is finished needs no other look.
            enough = all(count >= (1 if parent in FINISHED else 3) for parent, count in self._looks.items())
            if enough and not self.every_parent_was_looked_at_again.done():
                self.every_parent_was_looked_at_again.set_result(None)
            return again

        return seen


PARENTS = [
    ("FineTuneJob", "router"),
    ("FineTuneJob", "running"),
    ("FineTuneJob", "suspended"),
    ("FineTuneJob", "no-class"),
    ("Evaluation", "router"),
    ("ModelDeployment", "router"),
]
FINISHED = [("FineTuneJob", "router"), ("Evaluation", "router")]


def everything_there_can_be(api: Api) -> None:
    """A job that is done, evaluated and served, one that trains, one that is suspended, one that is stalled."""
    job = api.create("FineTuneJob", "router", JOB)
    trains(api, job)
    evaluation = api.create("Evaluation", "router", EVALUATION)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.75))
    deployment = api.create("ModelDeployment", "router", DEPLOYMENT)
    (server,) = api.wait_children(deployment, "serve", "Pod")
    played.ready(api, server)
    starts_training(api, api.create("FineTuneJob", "running", JOB))
    api.create("FineTuneJob", "suspended", {**JOB, "suspend": True})
    api.create("FineTuneJob", "no-class", {**JOB, "className": "none"})
    api.wait_reason("FineTuneJob", "suspended", "Suspended")
    api.wait_reason("FineTuneJob", "no-class", "ClassNotFound")
    api.wait_reason("ModelDeployment", "router", "Available")
    wait_for(lambda: all_ends_are_counted(api), "the Job controller has counted all that ended")


def all_ends_are_counted(api: Api) -> bool:
    """Until then, Jobs and Pods change."""
    pods = [pod for pod in api.items("Pod") if pod["status"]["phase"] in ("Pending", "Running")]
    running = Counter(pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") for pod in pods)
    return all(
        status.get("active", 0) == running[job["metadata"]["name"]]
        and not status.get("uncountedTerminatedPods")
        and (status.get("active") or "completionTime" in status)
        for job in api.items("Job")
        for status in [job.get("status", {})]
    )


def versions(api: Api) -> dict[str, str]:
    """The resource version of everything that only the operator writes."""
    found = [item for kind in (*dict(PARENTS), "ConfigMap", "Service") for item in api.items(kind)]
    found += [item for item in api.items("Event") if item["source"].get("component") == "finetune-operator"]
    return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found}
