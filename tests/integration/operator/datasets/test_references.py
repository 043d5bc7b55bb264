"""Jobs and Evaluations on splits of a Dataset, on a real API server: they wait, wake, and keep the revision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, stalled
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.datasets.test_datasets import another_pod, class_of, lines, runs_for_real, starts
from tests.integration.operator.jobs import EVALUATION, JOB, preflight_succeeds
from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3

pytestmark = pytest.mark.usefixtures("operator")
SPLIT: Object = {"validationPercent": 10, "testPercent": 20}


def of(split: str, name: str = "tickets") -> Object:
    return {"datasetRef": {"name": name, "split": split}}


BY_REFERENCE: Object = {**JOB, "dataset": {"training": of("training"), "validation": of("validation")}}
MEASURED: Object = {
    **EVALUATION,
    "candidates": [{"name": "tuned", "model": {"uri": "s3://models/tuned"}}],
    "baseline": {"model": {"uri": "s3://models/base"}},
    "dataset": of("test"),
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_in_real_s3("references") as bucket:
        yield bucket


def run_of(api: Api, made: Object) -> Object:
    """What its Pods are told."""
    found: Object = json.loads(played.run_files(api, made["spec"].get("template", made))["run.json"])
    return found


def pinned(dataset: Object, split: str) -> Object:
    """What a status says of the revision that the Dataset has."""
    revision = dataset["status"]["revision"]
    uid = dataset["metadata"]["uid"]
    return {"name": "tickets", "uid": uid, "split": split, "digest": revision["digest"], "uri": revision["uri"]}


def test_they_wait_for_the_dataset_and_pin_its_revision(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    job, evaluation = api.create("FineTuneJob", "router", BY_REFERENCE), api.create("Evaluation", "router", MEASURED)
    missing = api.wait_reason("FineTuneJob", "router", "ReferenceNotFound")
    assert stalled(missing)[1].startswith("Dataset 'tickets' does not exist in namespace")
    api.wait_reason("Evaluation", "router", "ReferenceNotFound")
    uri = bucket.put_lines("data/references.jsonl", lines(60))
    dataset, pod = starts(api, className=class_of(api, bucket), source={"uri": uri}, split=SPLIT)
    for kind in ("FineTuneJob", "Evaluation"):
        assert stalled(api.wait_reason(kind, "router", "WaitingForDataset")) == ("", "")
    assert not api.children_of(job, "preflight", "Pod")
    runs_for_real(api, pod, tmp_path / "first")
    built = api.wait_reason("Dataset", "tickets", "Succeeded")

    first = {"training": pinned(built, "training"), "validation": pinned(built, "validation")}
    (preflight,) = api.wait_children(job, "preflight", "Pod")
    assert run_of(api, preflight)["revisions"] == first
    waits = api.wait_reason("FineTuneJob", "router", "Validating")
    assert waits["status"]["datasetRevisions"] == first
    assert "suspendTime" not in waits["status"]
    api.wait_children(evaluation, "evaluate", "Job")
    measuring = api.wait_reason("Evaluation", "router", "Evaluating")
    assert measuring["status"]["datasetRevision"] == pinned(built, "test")

    # A newer revision, and then none at all, change nothing for runs that have begun.
    bucket.put_lines("data/references.jsonl", lines(80))
    api.patch("Dataset", "tickets", {"spec": {"runId": "2"}})
    second = another_pod(api, dataset, pod)
    runs_for_real(api, second, tmp_path / "second")
    rebuilt = api.wait("Dataset", "tickets", lambda found: found["status"].get("revision", {}).get("examples") == 80)
    api.delete("Dataset", "tickets")
    train = preflight_succeeds(api, job)
    assert run_of(api, train)["revisions"] == first
    assert api.wait_reason("FineTuneJob", "router", "Queued")["status"]["datasetRevisions"] == first
    assert api.get("Evaluation", "router")["status"]["datasetRevision"] == pinned(built, "test")
    assert len(api.children_of(evaluation, "evaluate", "Job")) == 1
    assert pinned(rebuilt, "test")["digest"] != pinned(built, "test")["digest"]


def test_a_split_that_is_missing_is_reported_with_those_that_are_there(
    api: Api, bucket: Bucket, tmp_path: Path
) -> None:
    uri = bucket.put_lines("data/one-split.jsonl", lines(20))
    _, pod = starts(api, className=class_of(api, bucket), source={"uri": uri})
    runs_for_real(api, pod, tmp_path)
    api.wait_reason("Dataset", "tickets", "Succeeded")
    api.create("Evaluation", "router", MEASURED)
    waits = api.wait_reason("Evaluation", "router", "ReferenceNotFound")
    assert "Dataset 'tickets' has no test split: its revision has training." in stalled(waits)[1]


def test_a_dataset_that_failed_is_reported(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put_lines("data/broken-reference.jsonl", [*lines(3), {"messages": []}])
    _, pod = starts(api, className=class_of(api, bucket), source={"uri": uri})
    job = api.create("FineTuneJob", "router", BY_REFERENCE)
    runs_for_real(api, pod, tmp_path)
    api.wait_reason("Dataset", "tickets", "DatasetInvalid")
    waits = api.wait("FineTuneJob", "router", lambda found: stalled(found)[0] == "WaitingForDataset")
    assert "see `kubectl describe ftds tickets`" in stalled(waits)[1]
    assert not api.children_of(job, "preflight", "Pod")


@pytest.mark.parametrize(
    ("kind", "spec", "told"),
    [
        (
            "FineTuneJob",
            {**JOB, "dataset": {"training": {"uri": "s3://data/a.jsonl", **of("training")}}},
            "set exactly one of uri, uris, configMapRef and datasetRef",
        ),
        (
            "FineTuneJob",
            {**JOB, "dataset": {"training": of("training"), "validation": {"splitPercent": 10, **of("validation")}}},
            "set exactly one of uri, uris, configMapRef, datasetRef and splitPercent",
        ),
        ("FineTuneJob", {**JOB, "dataset": {"training": of("all")}}, "Unsupported value"),
        (
            "Evaluation",
            {**MEASURED, "dataset": {"uri": "s3://data/a.jsonl", **of("test")}},
            "set exactly one of uri and datasetRef",
        ),
        ("Evaluation", {**MEASURED, "dataset": {"maxExamples": 3}}, "set exactly one of uri and datasetRef"),
    ],
)
def test_exactly_one_source_is_admitted(api: Api, kind: str, spec: Object, told: str) -> None:
    with pytest.raises(RefusedError, match=told):
        api.create(kind, "router", spec)


def test_the_class_need_not_allow_what_a_dataset_has_committed(api: Api, bucket: Bucket, tmp_path: Path) -> None:
    api.create("FineTuneClass", "models-only", {**CLASS, "sources": {"models": ["s3://models/*"], "datasets": []}})
    uri = bucket.put_lines("data/allowed.jsonl", lines(60))
    _, pod = starts(api, className=class_of(api, bucket), source={"uri": uri}, split=SPLIT)
    runs_for_real(api, pod, tmp_path)
    job = api.create("FineTuneJob", "router", {**BY_REFERENCE, "className": "models-only"})
    api.wait_children(job, "preflight", "Pod")
