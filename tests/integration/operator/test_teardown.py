"""The end: deleting a job ends everything of it, and a later one of the same name starts from nothing."""

from __future__ import annotations

import pytest

from finetune_api.run import TrainRun
from tests.integration.operator.api import COLLECTED_SECONDS, Api, wait_for
from tests.integration.operator.jobs import JOB, starts_training, trains

pytestmark = pytest.mark.usefixtures("operator")


def test_everything_of_a_job_goes_with_it_and_a_successor_adopts_nothing(api: Api) -> None:
    first = api.create("FineTuneJob", "router", JOB)
    train, _ = starts_training(api, first)
    run = TrainRun.model_validate_json(api.get("ConfigMap", train["metadata"]["name"])["data"]["run.json"])
    children = api.children(first["metadata"]["uid"])
    assert {kind: len(items) for kind, items in children.items()} == {
        "Job": 2,
        "Pod": 3,
        "ConfigMap": 2,
        "Service": 1,
        "Deployment": 0,
    }
    api.delete("FineTuneJob", "router")
    second = api.create("FineTuneJob", "router", JOB)

    status = api.wait_reason("FineTuneJob", "router", "Validating")["status"]
    assert status["preflight"]["jobName"] not in {item["metadata"]["name"] for item in children["Job"]}
    assert status["storageUri"] != run.output_uri, "what the first one left in the storage is not the second one's"
    (preflight,) = api.wait_children(second, "preflight", "Job")
    assert preflight["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]
    assert api.children_of(second, "train", "Job") == []

    gone = "the first job's children are gone"
    wait_for(lambda: not any(api.children(first["metadata"]["uid"]).values()), gone, COLLECTED_SECONDS)
    assert api.children_of(second, "preflight", "Job")


def test_a_ttl_removes_the_pods_and_keeps_the_job(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    trains(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 0}})
    wait_for(lambda: not api.children(job["metadata"]["uid"])["Pod"], "the Pods are removed")
    assert api.get("FineTuneJob", "router")["status"]["phase"] == "Succeeded"
    assert api.children_of(job, "train", "Job") == []
    assert api.children_of(job, "train", "ConfigMap") == []
