"""What a run has left in a real S3, read with the user's credentials or, where they may, with those of its Pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from e2e.s3 import S3, local_s3
from finetune_api.finetunejob import Result
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_client import ForbiddenError, NoResultError, StorageError, StorageOptions
from tests.integration.operator import played
from tests.integration.operator.api import Api
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB, RESULT, starts_training

pytestmark = pytest.mark.usefixtures("operator")

BUCKET = "models"
CSV = b"step,train_loss,valid_loss\n1,7.1,\n2,6.5,0.4\n"
PAGE = "<h1>Fine-tuning of router</h1>"
BY_SECRET = StorageOptions(credentials="Secret")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with local_s3() as storage:
        storage.create_bucket(BUCKET)
        yield storage


@pytest.fixture
def trained(api: Api, s3: S3) -> Iterator[str]:
    """The name of a job whose run has left its files; the namespace has the Secret that its class names."""
    name = f"files-{api.namespace}"
    storage = {**CLASS["storage"], "endpoint": s3.endpoint, "pathStyle": True}
    api.create("FineTuneClass", name, {**CLASS, "storage": storage})
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    secret = {"metadata": {"name": "s3-credentials"}, "stringData": keys}
    api.request("POST", f"/api/v1/namespaces/{api.namespace}/secrets", secret)
    _, pods = starts_training(api, api.create("FineTuneJob", "router", {**JOB, "className": name}))
    result = Result(**{**dict(RESULT), "report_uri": f"{RESULT.uri}/report.html"})
    for pod in pods:
        played.ends(api, pod, TrainReport(result=result) if pod is pods[0] else "")
    status = api.wait_reason("FineTuneJob", "router", "Succeeded")["status"]
    folder = str(status["storageUri"]).removeprefix(f"s3://{BUCKET}/")
    s3.put(BUCKET, f"{folder}/results.csv", CSV)
    s3.put(BUCKET, f"{folder}/result/report.html", PAGE.encode())
    yield "router"
    api.delete("FineTuneClass", name)


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


def test_the_secret_of_the_pods_is_used_if_that_is_asked_for(connect: Any, cluster: ControlPlane, trained: str) -> None:
    job = connect(cluster.kubeconfig, storage=BY_SECRET).get(trained)
    assert job.metrics().curve("valid_loss") == [(2, 0.4)]
    report = job.report()
    assert report.html == PAGE and report.uri == job.result.report_uri


def test_otherwise_the_users_own_credentials_are(
    connect: Any, cluster: ControlPlane, trained: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = connect(cluster.kubeconfig).get(trained)
    with pytest.raises(StorageError, match=r"no credentials to read .*s3-credentials.*credentials=\"Secret\""):
        job.metrics()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"The storage refused .*s3:GetObject"):
        job.metrics()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    assert job.metrics().steps == [1, 2]


def test_what_is_not_there_or_not_reached_is_said(
    connect: Any, cluster: ControlPlane, trained: str, api: Api, s3: S3
) -> None:
    job = connect(cluster.kubeconfig, storage=BY_SECRET).get(trained)
    key = job.result.report_uri.removeprefix(f"s3://{BUCKET}/")
    s3.client().delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(StorageError, match="does not exist"):
        job.report()
    away = StorageOptions(credentials="Secret", endpoint="http://127.0.0.1:1")
    with pytest.raises(StorageError, match="forward its port"):
        connect(cluster.kubeconfig, storage=away).get(trained).metrics()
    api.create("FineTuneJob", "new", JOB)
    with pytest.raises(NoResultError, match="had no result"):
        connect(cluster.kubeconfig, storage=BY_SECRET).get("new").report()


def test_who_may_not_read_the_secret_does_not_get_by_it(
    connect: Any, cluster: ControlPlane, trained: str, api: Api
) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api.namespace}"
    rules = [{"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": ["get"]}]
    api.request("POST", f"{rbac}/roles", {"metadata": {"name": "viewer"}, "rules": rules})
    binding = {
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
        "subjects": [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    api.request("POST", f"{rbac}/rolebindings", binding)
    job = connect(cluster.kubeconfig_for("viewer"), storage=BY_SECRET).get(trained)
    with pytest.raises(ForbiddenError, match="secrets"):
        job.report()
