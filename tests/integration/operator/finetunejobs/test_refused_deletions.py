"""A webhook guards what must stop, and does not answer: that is told, and nothing is said to have stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.components.certificates import Authority
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.finetunejobs.webhooks import denying_webhook, unanswered_webhook
from tests.integration.operator.jobs import JOB, starts_training, trains

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def train(api: Api) -> Object:
    """The Job of an attempt that trains."""
    train, _ = starts_training(api, api.create("FineTuneJob", "router", JOB))
    api.wait_reason("FineTuneJob", "router", "Training")
    return train


@pytest.fixture
def guarded(api: Api, train: Object) -> Iterator[str]:
    with unanswered_webhook(api, ["DELETE"], ["jobs", "pods"]) as path:
        wait_for(lambda: is_guarded(api, train), "the API server has heard of the webhook")
        yield path


def is_guarded(api: Api, train: Object, code: int = 500) -> bool:
    try:
        api.request("DELETE", api.path("Job", train["metadata"]["name"]), {"dryRun": ["All"]})
    except RefusedError as error:
        return error.code == code
    return False


def test_a_job_that_can_not_be_stopped_is_not_said_to_be_stopping(api: Api, train: Object, guarded: str) -> None:
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    told = api.wait_reason("FineTuneJob", "router", "ObjectRejected")
    assert told["status"]["phase"] == "Training"
    message = condition(told, "Ready")["message"]
    assert f"refuses to delete Job {train['metadata']['name']}, which may still run" in message
    assert "failed calling webhook" in message
    api.request("DELETE", guarded)
    wait_for(lambda: not is_guarded(api, train), "it is gone")
    api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": "sooner"}}})
    over = ("Stopping", "Suspended")
    stopping = api.wait("FineTuneJob", "router", lambda found: condition(found, "Ready")["reason"] in over)
    assert stalled(stopping) == ("", "")


@pytest.mark.parametrize("code", [403, 404, 409, 503])
def test_a_webhook_may_deny_a_deletion_with_any_code(api: Api, train: Object, tmp_path: Path, code: int) -> None:
    """With 404 as if the Job were gone, with 409 as if it were another one by now."""
    with denying_webhook(api, ["DELETE"], ["jobs"], code=code, authority=Authority(tmp_path)):
        wait_for(lambda: is_guarded(api, train, code), "the API server has heard of the webhook")
        api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
        told = api.wait_reason("FineTuneJob", "router", "ObjectRejected")
        assert told["status"]["phase"] == "Training"
        assert "this is protected" in condition(told, "Ready")["message"]


def test_a_run_whose_job_can_not_be_stopped_is_not_said_to_be_cancelled(api: Api, train: Object, guarded: str) -> None:
    api.patch("FineTuneJob", "router", {"spec": {"cancel": True}})
    told = api.wait_reason("FineTuneJob", "router", "ObjectRejected")
    assert told["status"]["phase"] == "Training"
    assert f"refuses to delete Job {train['metadata']['name']}" in condition(told, "Ready")["message"]

    def warnings() -> list[str]:
        return [event["message"] for event in api.items("Event") if event["reason"] == "ObjectRejected"]

    wait_for(lambda: bool(warnings()), "an Event says so, too")
    api.request("DELETE", guarded)
    wait_for(lambda: not is_guarded(api, train), "it is gone")
    api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": "sooner"}}})
    over = api.wait("FineTuneJob", "router", lambda found: found["status"]["phase"] == "Cancelled")
    assert condition(over, "Failed")["reason"] == "Cancelled"
    assert not api.exists("Job", train["metadata"]["name"])


def test_a_job_whose_storage_is_empty_goes_though_no_kubernetes_job_may_be_deleted(api: Api) -> None:
    """The Job that emptied it has ended, and Kubernetes removes it in time."""
    class_name = f"class-{api.namespace}"
    api.create("FineTuneClass", class_name, {**CLASS, "reclaimPolicy": "Delete"})
    job = api.create("FineTuneJob", "router", {**JOB, "className": class_name})
    trains(api, job)
    (train,) = api.children_of(job, "train", "Job")
    with unanswered_webhook(api, ["DELETE"], ["jobs"]):
        wait_for(lambda: is_guarded(api, train), "the API server has heard of the webhook")
        api.delete("FineTuneJob", "router")
        (emptying,) = api.wait_children(job, "delete", "Pod")
        played.ends(api, emptying, "")
        wait_for(lambda: not api.exists("FineTuneJob", "router"), "it is gone")
    api.delete("FineTuneClass", class_name)
