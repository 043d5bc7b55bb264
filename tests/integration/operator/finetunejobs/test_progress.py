"""Progress from a training Pod, over real TLS, with a token that the API server made for that Pod."""

from __future__ import annotations

import json
import ssl
import time
from datetime import UTC, datetime

import pytest
import urllib3

from finetune_api.pod_contracts.progress import PROGRESS_AUDIENCE
from finetune_api.pod_contracts.run import TrainRun
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object
from tests.integration.operator.jobs import JOB, starts_training, trains
from tests.integration.operator.process import OperatorProcess


def token(api: Api, pod: Object | None, audience: str = PROGRESS_AUDIENCE) -> str:
    """What the kubelet would project into a Pod: https://kubernetes.io/docs/reference/kubernetes-api/ TokenRequest."""
    spec: Object = {"audiences": [audience], "expirationSeconds": 3600}
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    issued: str = api.request("POST", f"{api.path('ServiceAccount', 'default')}/token", body)["status"]["token"]
    return issued


def run_configuration(api: Api, train: Object) -> tuple[TrainRun, str]:
    """What the Pods mount: the run configuration, and the CA of the endpoint."""
    data = played.run_files(api, train["spec"]["template"])
    return TrainRun.model_validate_json(data["run.json"]), data["progress-ca.crt"]


def report(url: str, ca: str, bearer: str, step: int = 300, loss: float = 1.25, ledger: Object | None = None) -> int:
    """POST as transformers' KubeflowCallback does; returns the HTTP status."""
    metrics = {"current_step": step, "total_steps": 750, "loss": loss}
    status = {
        "lastUpdatedTime": datetime.now(UTC).isoformat(),
        "estimatedRemainingSeconds": 90,
        "metrics": [{"name": name, "value": str(value)} for name, value in metrics.items()],
    }
    with urllib3.PoolManager(ssl_context=ssl.create_default_context(cadata=ca)) as client:
        headers = {"Authorization": f"Bearer {bearer}"}
        body = {"trainerStatus": status, **({"ledger": ledger} if ledger is not None else {})}
        return client.request("POST", url, json=body, headers=headers, timeout=10).status


def test_a_pod_reports_for_its_own_job_and_for_no_other(api: Api, operator: OperatorProcess) -> None:
    mine = api.create("FineTuneJob", "mine", JOB)
    train, pods = starts_training(api, mine)
    other = api.create("FineTuneJob", "other", JOB)
    _, other_pods = starts_training(api, other)
    run, ca = run_configuration(api, train)
    assert run.progress is not None
    url = run.progress.url
    assert url.startswith(operator.progress_url)

    assert report(url, ca, token(api, pods[0])) == 200
    shown = api.wait("FineTuneJob", "mine", lambda found: "progress" in found["status"])["status"]["progress"]
    expected = {"step": 300, "totalSteps": 750, "percent": 40, "loss": 1.25, "estimatedRemainingSeconds": 90}
    assert shown.items() >= expected.items()

    assert report(url, ca, token(api, other_pods[0])) == 403
    assert report(url, ca, token(api, pods[0], audience="https://kubernetes.default.svc.cluster.local")) == 401
    assert report(url, ca, token(api, None)) == 401
    assert report(url, ca, "nonsense") == 401
    assert "progress" not in api.get("FineTuneJob", "other")["status"]


def test_the_endpoint_proves_who_it_is(operator: OperatorProcess) -> None:
    with urllib3.PoolManager() as client, pytest.raises(urllib3.exceptions.MaxRetryError, match="CERTIFICATE_VERIFY"):
        client.request("POST", operator.progress_url, timeout=10, retries=0)


def test_the_status_is_written_at_most_every_ten_seconds(api: Api, operator: OperatorProcess) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    run, ca = run_configuration(api, train)
    assert run.progress is not None
    bearer, begun = token(api, pods[0]), time.monotonic()
    assert report(run.progress.url, ca, bearer, step=1) == 200
    first = api.wait("FineTuneJob", "router", lambda found: "progress" in found["status"])
    written = {json.dumps(first["status"])}
    for step in range(2, 40):
        assert report(run.progress.url, ca, bearer, step=step) == 200
        touched = api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": str(step)}}})
        written.add(json.dumps(touched["status"]))
    written.add(json.dumps(api.get("FineTuneJob", "router")["status"]))
    assert len(written) <= 1 + (time.monotonic() - begun) // 10
    assert operator.is_running()


def test_without_any_report_the_final_status_is_complete(api: Api, operator: OperatorProcess) -> None:
    """The endpoint could not be reached: what rank 0 said at its end is enough."""
    status = trains(api, api.create("FineTuneJob", "router", JOB))["status"]
    assert status["result"]["step"] == 750
    assert [one["step"] for one in status["checkpoints"]] == [750]
    assert status["progress"].items() >= {"step": 750, "totalSteps": 750, "percent": 100}.items()


def test_the_ledger_of_checkpoints_is_in_the_status(api: Api, operator: OperatorProcess) -> None:
    train, pods = starts_training(api, api.create("FineTuneJob", "router", JOB))
    run, ca = run_configuration(api, train)
    assert run.progress is not None
    committed = {
        "step": 150,
        "uri": f"{run.output_uri}/checkpoints/step-000150",
        "size": 7,
        "committedTime": "2026-11-22T12:00:00Z",
    }
    ledger = {"checkpoints": [committed], "checkpointSeconds": 2.5}
    assert report(run.progress.url, ca, token(api, pods[0]), ledger=ledger) == 200
    status = api.wait("FineTuneJob", "router", lambda found: "checkpoints" in found["status"])["status"]
    assert (status["checkpoints"], status["checkpointSeconds"]) == ([committed], 2.5)
