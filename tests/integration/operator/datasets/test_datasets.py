"""A Dataset's life on a real API server; the real command builds it in a real S3, from what its Pod was given."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.pod_contracts.run import DatasetRun
from finetune_trainer.dataset.build import build
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import DATASET, DATASET_REPORT, NETWORK_FAILURE
from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3
from tests.integration.trainer_evaluation.tiny_models import chat
from tests.unit.trainer.texts import words

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_in_real_s3("datasets") as bucket:
        yield bucket


def class_of(api: Api, bucket: Bucket) -> str:
    """A class whose storage is that S3."""
    name = f"s3-{secrets.token_hex(4)}"
    storage = {
        "serviceAccountName": "default",
        "bucket": bucket.name,
        "endpoint": bucket.storage.endpoint,
        "region": bucket.storage.region,
    }
    api.create(
        "FineTuneClass",
        name,
        {
            **CLASS,
            "storage": {**storage, "pathStyle": True, "prefix": "finetune"},
            "sources": {"models": [], "datasets": [bucket.uri("data/*")]},
        },
    )
    return name


def lines(count: int, begin: int = 0) -> list[dict[str, Any]]:
    return [chat(words(number, 10), words(number + 10**6, 4)) for number in range(begin, begin + count)]


def starts(api: Api, **changes: object) -> tuple[Object, Object]:
    """A Dataset and its Pod."""
    spec = {name: value for name, value in {**DATASET, **changes}.items() if value is not None}
    dataset = api.create("Dataset", "tickets", spec)
    (pod,) = api.wait_children(dataset, "dataset", "Pod")
    return dataset, pod


def runs_for_real(api: Api, pod: Object, directory: Path) -> None:
    """The Pod's command, with the run configuration that the kubelet would mount."""
    run = DatasetRun.from_wire(json.loads(played.run_files(api, pod)["run.json"]))
    try:
        played.ends(api, pod, build(run, directory))
    except DiagnosedError as error:
        played.ends(api, pod, error.failure)


def retry_now(api: Api) -> None:
    """That the pause before the next try is over is played."""
    status = api.wait("Dataset", "tickets", lambda found: "retryTime" in found["status"])["status"]
    api.put_status("Dataset", "tickets", {**status, "retryTime": played.MOMENT})


def another_pod(api: Api, dataset: Object, *known: Object) -> Object:
    """The one beside these."""
    uids = {pod["metadata"]["uid"] for pod in known}

    def others() -> list[Object]:
        return [pod for pod in api.children_of(dataset, "dataset", "Pod") if pod["metadata"]["uid"] not in uids]

    wait_for(lambda: len(others()) == 1, "another Pod")
    return others()[0]


def test_a_dataset_is_built_and_its_status_names_the_committed_files(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put_lines("data/tickets.jsonl", lines(40))
    split = {"validationPercent": 10, "testPercent": 20}
    _, pod = starts(api, className=class_of(api, bucket), source={"uri": uri}, split=split)
    runs_for_real(api, pod, tmp_path)
    found = api.wait_reason("Dataset", "tickets", "Succeeded")
    assert (found["status"]["phase"], condition(found, "Ready")["status"]) == ("Succeeded", "True")
    revision = found["status"]["revision"]
    counts = {one["name"]: one["examples"] for one in revision["splits"]}
    assert counts == {"training": 28, "validation": 4, "test": 8}
    committed = {one["name"]: bucket.read(one["uri"]).decode().splitlines() for one in revision["splits"]}
    assert {name: len(texts) for name, texts in committed.items()} == counts
    assert [(one["uri"], one["taken"]) for one in revision["sources"]] == [(uri, 40)]
    assert "28 training, 4 validation, 8 test examples are in" in condition(found, "Ready")["message"]


def test_merged_parts_are_built_and_a_new_run_commits_beside_the_first(
    api: Api, bucket: Bucket, tmp_path: Path
) -> None:
    common = bucket.put_lines("data/common.jsonl", lines(60, begin=100))
    rare = bucket.put_lines("data/rare.jsonl", lines(20, begin=200))
    merge = [{"name": "common", "uri": common, "weight": 2}, {"name": "rare", "uri": rare, "weight": 1}]
    dataset, first = starts(api, source=None, merge=merge, className=class_of(api, bucket))
    runs_for_real(api, first, tmp_path / "first")
    before = api.wait_reason("Dataset", "tickets", "Succeeded")["status"]["revision"]
    assert before["examples"] == 60
    assert before["leftOut"]["weights"] == 20

    bucket.put_lines("data/rare.jsonl", lines(30, begin=200))
    api.patch("Dataset", "tickets", {"spec": {"runId": "2"}})
    second = another_pod(api, dataset, first)
    api.wait("Dataset", "tickets", lambda found: "revision" not in found["status"])
    runs_for_real(api, second, tmp_path / "second")
    status = api.wait_reason("Dataset", "tickets", "Succeeded")["status"]
    assert [(one["digest"], one["uri"]) for one in status["history"]] == [(before["digest"], before["uri"])]
    after = status["revision"]
    assert after["examples"] == 90
    assert after["digest"] != before["digest"]
    assert after["uri"] != before["uri"]
    assert bucket.read(f"{before['uri']}/training.jsonl").count(b"\n") == 60


def test_a_broken_line_ends_the_run_and_names_the_line(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put_lines("data/broken.jsonl", [*lines(3), {"messages": []}])
    _, pod = starts(api, className=class_of(api, bucket), source={"uri": uri})
    runs_for_real(api, pod, tmp_path)
    over = api.wait_reason("Dataset", "tickets", "DatasetInvalid")
    assert (over["status"]["phase"], condition(over, "Failed")["status"]) == ("Failed", "True")
    assert stalled(over)[1].startswith(f"Line 4 of {uri}: ")
    assert (over["status"]["errorCount"], [one["line"] for one in over["status"]["errors"]]) == (1, [4])
    assert "change spec.runId" in stalled(over)[1]


def test_what_may_heal_is_tried_as_often_as_allowed(api: Api) -> None:
    dataset, pod = starts(api, retryLimit=1)
    played.ends(api, pod, NETWORK_FAILURE)
    assert api.wait_reason("Dataset", "tickets", "StorageUnreachable")["status"]["phase"] == "Retrying"
    retry_now(api)
    second = another_pod(api, dataset, pod)
    played.ends(api, second, NETWORK_FAILURE)
    over = api.wait_reason("Dataset", "tickets", "RetryLimitReached")
    assert over["status"]["phase"] == "Failed"


def test_a_disruption_does_not_count(api: Api) -> None:
    dataset, pod = starts(api, retryLimit=0)
    played.is_disrupted(api, pod)
    retrying = api.wait_reason("Dataset", "tickets", "Retrying")
    assert (retrying["status"]["disruptions"], retrying["status"].get("retries", 0)) == (1, 0)
    retry_now(api)
    played.ends(api, another_pod(api, dataset, pod), DATASET_REPORT)
    api.wait_reason("Dataset", "tickets", "Succeeded")


def test_suspend_and_resume_and_cancel(api: Api) -> None:
    dataset, pod = starts(api)
    api.patch("Dataset", "tickets", {"spec": {"suspend": True}})
    assert api.wait_reason("Dataset", "tickets", "Suspended")["status"]["phase"] == "Suspended"
    assert api.children_of(dataset, "dataset", "Job") == []
    api.patch("Dataset", "tickets", {"spec": {"suspend": False}})
    another_pod(api, dataset, pod)
    api.patch("Dataset", "tickets", {"spec": {"cancel": True}})
    over = api.wait_reason("Dataset", "tickets", "Cancelled")
    assert (over["status"]["phase"], condition(over, "Failed")["status"]) == ("Cancelled", "True")


def test_a_report_of_another_folder_is_refused(api: Api) -> None:
    _, pod = starts(api)
    revision = DATASET_REPORT.revision.model_copy(update={"uri": "s3://elsewhere/claim-000001"})
    played.ends(api, pod, DATASET_REPORT.model_copy(update={"revision": revision}))
    over = api.wait_reason("Dataset", "tickets", "ReportRefused")
    assert "revision" not in over["status"]


def test_a_source_that_the_class_does_not_allow_gets_no_pod(api: Api, bucket: Bucket) -> None:
    name = class_of(api, bucket)
    dataset = api.create("Dataset", "tickets", {"className": name, "source": {"uri": "s3://other/x.jsonl"}})
    api.wait_reason("Dataset", "tickets", "SourceNotAllowed")
    assert api.children_of(dataset, "dataset", "Job") == []
    sources = {"datasets": ["s3://other/*"]}
    api.patch("FineTuneClass", name, {"spec": {"sources": sources}})
    api.wait_children(dataset, "dataset", "Pod")


def test_its_job_goes_after_its_time_and_the_revision_stays(api: Api) -> None:
    dataset, pod = starts(api, ttlSecondsAfterFinished=0)
    played.ends(api, pod, DATASET_REPORT)
    api.wait_reason("Dataset", "tickets", "Succeeded")
    wait_for(lambda: api.children_of(dataset, "dataset", "Job") == [], "the Job to be gone")
    assert api.get("Dataset", "tickets")["status"]["revision"]["digest"] == "sha256:aa"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "set exactly one of source, merge and generate"),
        ({"source": {"uri": "s3://d/x"}, "merge": []}, "set exactly one of source, merge and generate"),
        ({"source": {}}, "set exactly one of uri, uris and configMapRef"),
        ({"merge": [{"name": "a", "uri": "s3://data/x", "weight": 0}]}, "spec.merge"),
        ({"source": {"uri": "s3://data/x"}, "split": {"testPercent": 90}}, "spec.split.testPercent"),
    ],
)
def test_what_can_not_be_built_is_refused_by_the_api_server(api: Api, spec: Object, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        api.create("Dataset", "bad", spec)


def test_a_change_needs_another_run_id(api: Api) -> None:
    starts(api)
    with pytest.raises(RefusedError, match=r"changing the spec starts a new run: change spec\.runId too"):
        api.patch("Dataset", "tickets", {"spec": {"seed": 18}})
    api.patch("Dataset", "tickets", {"spec": {"ttlSecondsAfterFinished": 7}})
