"""The end: deleting a job ends everything of it, and a later one of the same name starts from nothing."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.pod_contracts.run import DeleteRun, TrainRun
from finetune_trainer.storage.delete import delete
from tests.integration.operator import played
from tests.integration.operator.api import COLLECTED_SECONDS, Api, Object, condition, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.finetunejobs.test_progress import report, run_configuration, token
from tests.integration.operator.jobs import JOB, preflight_succeeds, starts_training, trains
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.test_metrics import expect_forgotten
from tests.integration.trainer_evaluation.buckets import Bucket, bucket_in_real_s3

pytestmark = pytest.mark.usefixtures("operator")

FINALIZERS = ["finetune.dev/storage"]


@pytest.fixture
def reclaiming(api: Api) -> Iterator[str]:
    """A class of the test's own that wants the storage emptied."""
    name = f"class-{api.namespace}"
    api.create("FineTuneClass", name, {**CLASS, "reclaimPolicy": "Delete"})
    yield name
    if api.exists("FineTuneClass", name):
        api.delete("FineTuneClass", name)


def delete_job(api: Api, policy: str = "Background") -> None:
    api.request("DELETE", api.path("FineTuneJob", "router"), {"propagationPolicy": policy})


def wait_gone(api: Api, job: Object) -> None:
    """The job and everything of it, within the minute that is promised."""
    left: dict[str, list[str]] = {}

    def gone() -> bool:
        found = {**api.children(job["metadata"]["uid"]), "FineTuneJob": api.items("FineTuneJob")}
        left.update({kind: [item["metadata"]["name"] for item in items] for kind, items in found.items()})
        return not any(left.values())

    try:
        wait_for(gone, "the job and all its children are gone", COLLECTED_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from error


def kept_in_storage(api: Api, class_name: str) -> list[str]:
    """What Events on the class say stays in the storage."""
    events = api.request("GET", "/api/v1/namespaces/default/events")["items"]
    about = [event for event in events if event["involvedObject"]["name"] == class_name]
    assert all(event["involvedObject"]["kind"] == "FineTuneClass" for event in about)
    return [event["message"] for event in about if (event["type"], event["reason"]) == ("Warning", "StorageKept")]


def test_everything_of_a_job_goes_with_it_and_a_successor_adopts_nothing(api: Api) -> None:
    first = api.create("FineTuneJob", "router", JOB)
    train, _ = starts_training(api, first)
    run = TrainRun.model_validate_json(played.run_files(api, train["spec"]["template"])["run.json"])
    children = api.children(first["metadata"]["uid"])
    assert {kind: len(items) for kind, items in children.items()} == {
        "Job": 1,
        "Pod": 3,
        "ConfigMap": 0,
        "Service": 1,
        "Deployment": 0,
        "PodDisruptionBudget": 0,
    }
    api.delete("FineTuneJob", "router")
    second = api.create("FineTuneJob", "router", JOB)

    status = api.wait_reason("FineTuneJob", "router", "Validating")["status"]
    assert status["preflight"]["jobName"] not in {item["metadata"]["name"] for item in children["Pod"]}
    assert status["storageUri"] != run.output_uri, "what the first one left in the storage is not the second one's"
    (preflight,) = api.wait_children(second, "preflight", "Pod")
    assert preflight["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]
    assert api.children_of(second, "train", "Job") == []

    gone = "the first job's children are gone"
    wait_for(lambda: not any(api.children(first["metadata"]["uid"]).values()), gone, COLLECTED_SECONDS)
    assert api.children_of(second, "preflight", "Pod")


def test_a_ttl_removes_the_pods_and_keeps_the_job(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    trains(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 0}})
    wait_for(lambda: not api.children(job["metadata"]["uid"])["Pod"], "the Pods are removed")
    assert api.get("FineTuneJob", "router")["status"]["phase"] == "Succeeded"
    assert api.children_of(job, "train", "Job") == []


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_deleted_job_goes_within_a_minute_and_holds_nothing(api: Api, policy: str) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    starts_training(api, job)
    assert "finalizers" not in api.get("FineTuneJob", "router")["metadata"]
    delete_job(api, policy)
    wait_gone(api, job)


def test_a_deleted_namespace_frees_the_accelerators_at_once(api: Api) -> None:
    """The Pods are told to stop; of one without a node only a sweep of Kubernetes' would say that it has."""
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    api.request("DELETE", f"/api/v1/namespaces/{api.namespace}")
    for pod in pods:
        api.wait("Pod", pod["metadata"]["name"], lambda one: "deletionTimestamp" in one["metadata"])
        played.has_stopped(api, pod)
    wait_for(lambda: not api.children(job["metadata"]["uid"])["Pod"], "the Pods are gone")


def test_everything_goes_with_the_namespace(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    api.wait_children(job, "preflight", "Pod")
    delete_namespace(api, job)


@pytest.fixture
def killed(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, killed; it runs again at the end."""
    operator.kill()
    yield operator
    operator.start()


@pytest.fixture
def started(api: Api) -> Object:
    job = api.create("FineTuneJob", "router", JOB)
    api.wait_children(job, "preflight", "Pod")
    return job


def test_a_deleted_job_goes_with_the_operator_down(api: Api, started: Object, killed: OperatorProcess) -> None:
    api.delete("FineTuneJob", "router")
    wait_gone(api, started)


def test_a_deleted_namespace_goes_with_the_operator_down(api: Api, started: Object, killed: OperatorProcess) -> None:
    delete_namespace(api, started)


def delete_namespace(api: Api, job: Object) -> None:
    """Delete it, and wait until everything of the job is gone.

    The namespace controller deletes the Pods first, and looks at the rest after half their grace period: 16 s of a
    preflight, 61 s of a training.
    """
    api.request("DELETE", f"/api/v1/namespaces/{api.namespace}")
    wait_gone(api, job)


# reclaimPolicy: Delete.


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with bucket_in_real_s3("reclaimed") as bucket:
        yield bucket


def removal_pod(api: Api, job: Object) -> Object:
    (pod,) = api.wait_children(job, "delete", "Pod")
    return pod


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_class_that_reclaims_has_the_storage_emptied_before_the_job_goes(
    api: Api, reclaiming: str, bucket: Bucket, policy: str
) -> None:
    """The Pod is played by running its command here, on its own run.json and a real S3."""
    storage = {"bucket": bucket.name, "endpoint": bucket.storage.endpoint, "pathStyle": True}
    api.patch("FineTuneClass", reclaiming, {"spec": {"storage": storage}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": reclaiming})
    starts_training(api, job)
    held = api.get("FineTuneJob", "router")
    assert held["metadata"]["finalizers"] == FINALIZERS
    written = {entry["manager"]: entry["fieldsV1"] for entry in held["metadata"]["managedFields"]}
    assert list(written["finetune-operator-storage"]) == ["f:metadata"], "never the spec"
    key = held["status"]["storageUri"].removeprefix(f"s3://{bucket.name}/")
    bucket.put(f"{key}/result/adapter_model.safetensors", b"1")
    bucket.put(f"{key.rpartition('/')[0]}/1-deadbeef/result/adapter_model.safetensors", b"another job's")

    delete_job(api, policy)
    pod = removal_pod(api, job)
    assert {item["metadata"]["name"] for item in api.children_of(job, "train", "Pod")} == set(), (
        "nobody writes any more"
    )
    waiting = api.wait(
        "FineTuneJob", "router", lambda found: "is removing s3://reclaimed/" in condition(found, "Ready")["message"]
    )
    assert condition(waiting, "Ready")["reason"] == "Deleting"
    assert condition(waiting, "Stalled")["status"] == "False"
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "run"]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['finetune.dev/run']"
    delete(DeleteRun.model_validate_json(pod["metadata"]["annotations"]["finetune.dev/run"]))
    played.ends(api, pod, "")
    wait_gone(api, job)
    left = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    assert [item["Key"] for item in left if f"/{api.namespace}/" in item["Key"]] == [
        f"{key.rpartition('/')[0]}/1-deadbeef/result/adapter_model.safetensors"
    ]
    assert kept_in_storage(api, reclaiming) == []


def test_a_class_that_changes_its_mind_is_heard(api: Api, reclaiming: str) -> None:
    api.create("FineTuneJob", "router", {**JOB, "className": reclaiming, "suspend": True})

    def finalizers(found: Object) -> Any:
        return found["metadata"].get("finalizers", [])

    api.wait("FineTuneJob", "router", lambda found: finalizers(found) == FINALIZERS)
    api.patch("FineTuneClass", reclaiming, {"spec": {"reclaimPolicy": "Retain"}})
    api.wait("FineTuneJob", "router", lambda found: finalizers(found) == [])


def test_a_class_that_changes_its_mind_is_heard_by_a_finished_job_too(
    api: Api, reclaiming: str, operator: OperatorProcess
) -> None:
    trains(api, api.create("FineTuneJob", "router", {**JOB, "className": reclaiming}))

    def finalizers(found: Object) -> Any:
        return found["metadata"].get("finalizers", [])

    for policy, expected in (("Retain", []), ("Delete", FINALIZERS)):
        expect_forgotten(operator, "FineTuneJob", lambda: touch(api, reclaiming))
        api.patch("FineTuneClass", reclaiming, {"spec": {"reclaimPolicy": policy}})
        api.wait("FineTuneJob", "router", lambda found, expected=expected: finalizers(found) == expected)  # type: ignore[misc]


def touch(api: Api, class_name: str) -> None:
    """Its spec: annotations wake nobody."""
    api.patch("FineTuneClass", class_name, {"spec": {"limits": {"nodes": 10 + secrets.randbelow(90)}}})


def test_each_run_goes_by_its_own_class_and_what_its_class_retains_stays(api: Api, reclaiming: str) -> None:
    retaining = f"retaining-{api.namespace}"
    api.create("FineTuneClass", retaining, {**CLASS, "storage": {**CLASS["storage"], "prefix": "prod"}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": retaining})
    preflight_succeeds(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"className": reclaiming, "runId": "2"}})
    moved = api.wait(
        "FineTuneJob", "router", lambda found: [one["className"] for one in folders(found)] == [retaining, reclaiming]
    )
    api.delete("FineTuneJob", "router")
    run = DeleteRun.model_validate_json(removal_pod(api, job)["metadata"]["annotations"]["finetune.dev/run"])
    assert run.folder_uris == [one["uri"] for one in folders(moved) if one["className"] == reclaiming]
    api.delete("FineTuneClass", retaining)
    (pod,) = api.wait_children(job, "delete", "Pod")
    played.ends(api, pod, "")
    wait_gone(api, job)
    (message,) = kept_in_storage(api, reclaiming)
    assert folders(moved)[0]["uri"] in message, "its class is gone: nobody says any more what it wants"


def folders(job: Object) -> list[Object]:
    found: list[Object] = job.get("status", {}).get("storageFolders", [])
    return found


def test_in_a_deleted_namespace_the_objects_stay_and_the_class_tells(api: Api, reclaiming: str) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": reclaiming})
    api.wait_children(job, "preflight", "Pod")
    told = api.wait("FineTuneJob", "router", lambda found: "storageUri" in found.get("status", {}))
    uri = told["status"]["storageUri"]
    delete_namespace(api, job)
    (message,) = kept_in_storage(api, reclaiming)
    assert f"FineTuneJob {api.namespace}/router" in message
    assert uri.rpartition("/")[0] in message


def test_without_its_class_the_objects_stay_and_the_job_goes(api: Api, reclaiming: str) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": reclaiming})
    preflight_succeeds(api, job)
    api.delete("FineTuneClass", reclaiming)
    api.delete("FineTuneJob", "router")
    wait_gone(api, job)
    (message,) = kept_in_storage(api, reclaiming)
    assert "does not exist" in message


def test_killed_while_it_removes_it_goes_on(api: Api, reclaiming: str, operator: OperatorProcess) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": reclaiming})
    preflight_succeeds(api, job)
    api.delete("FineTuneJob", "router")
    pod = removal_pod(api, job)
    operator.kill()
    played.ends(api, pod, "")
    assert api.exists("FineTuneJob", "router")
    operator.start()
    wait_gone(api, job)


def test_an_uninstalled_operators_finalizers_are_released_by_a_command(
    cluster: ControlPlane, api: Api, reclaiming: str, operator: OperatorProcess
) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": reclaiming, "suspend": True})
    api.wait("FineTuneJob", "router", lambda found: found["metadata"].get("finalizers") == FINALIZERS)
    operator.kill()
    try:
        command = [sys.executable, "-m", "finetune_operator", "release-finalizers", "--kubeconfig", cluster.kubeconfig]
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
        assert f"{api.namespace}/router\n" in done.stdout
        api.delete("FineTuneJob", "router")
        wait_gone(api, job)
    finally:
        operator.start()


def test_a_finalizer_that_somebody_put_on_a_job_holds_no_run(api: Api) -> None:
    """Deleted in the background, such a Job stays, and the garbage collector leaves its Pods alone."""
    router = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, router)
    for pod in pods:
        played.is_bound(api, pod)
    name = train["metadata"]["name"]
    api.patch("Job", name, {"metadata": {"finalizers": ["backup.example.com/hold"]}})
    api.delete("Job", name)
    found = api.wait("FineTuneJob", "router", lambda one: one["status"].get("endedAttempts", []) != [])
    assert found["status"]["endedAttempts"][0]["reason"] == "JobDeleted"
    assert "backup.example.com/hold" in found["status"]["endedAttempts"][0]["message"]
    for pod in pods:
        api.wait("Pod", pod["metadata"]["name"], lambda one: "deletionTimestamp" in one["metadata"])
        played.has_stopped(api, pod)
    api.wait("FineTuneJob", "router", lambda one: one["status"]["attempt"]["number"] == 2)
    # The garbage collector takes its own away once the Pods are gone.
    api.wait("Job", name, lambda one: one["metadata"]["finalizers"] == ["backup.example.com/hold"])
    api.patch("Job", name, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("deleted_by", ["suspend", "somebody"])
def test_pods_that_save_are_heard_until_they_end(api: Api, operator: OperatorProcess, deleted_by: str) -> None:
    """Whoever deleted their Job, and however long ago. A new operator knows of no report before."""
    router = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, router)
    for pod in pods:
        played.is_bound(api, pod)
    run, ca = run_configuration(api, train)
    assert run.progress is not None
    bearer = token(api, pods[0])
    if deleted_by == "suspend":
        api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    else:
        api.delete("Job", train["metadata"]["name"])
    for pod in pods:
        api.wait("Pod", pod["metadata"]["name"], lambda one: "deletionTimestamp" in one["metadata"])
    assert reports_checkpoint(run, ca, bearer, step=150) == 200
    # That its Job is gone, and that it saved, are told to the operator apart.
    both = api.wait("FineTuneJob", "router", lambda one: {"checkpoints", "endedAttempts"} <= one["status"].keys())
    status = both["status"]
    assert (status["checkpoints"][0]["step"], status["endedAttempts"][0]["step"]) == (150, 150)
    for pod in pods:
        played.has_stopped(api, pod)


def reports_checkpoint(run: TrainRun, ca: str, bearer: str, step: int) -> int:
    """A report of this step, which is saved; returns the HTTP status."""
    committed = {"step": step, "uri": f"{run.output_uri}/checkpoints/step-{step:06}", "size": 7}
    ledger = {"checkpoints": [{**committed, "committedTime": "2026-11-22T12:00:00Z"}], "checkpointSeconds": 2.5}
    assert run.progress is not None
    return report(run.progress.url, ca, bearer, step=step, ledger=ledger)


def test_a_suspended_job_shows_what_its_last_save_wrote(api: Api, operator: OperatorProcess) -> None:
    """Reported right after another one, and nothing happens to the job after its Pods have ended."""
    router = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, router)
    for pod in pods:
        played.is_bound(api, pod)
    run, ca = run_configuration(api, train)
    bearer = token(api, pods[0])
    assert reports_checkpoint(run, ca, bearer, step=150) == 200
    api.wait("FineTuneJob", "router", lambda one: "checkpoints" in one["status"])
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    for pod in pods:
        api.wait("Pod", pod["metadata"]["name"], lambda one: "deletionTimestamp" in one["metadata"])
    assert reports_checkpoint(run, ca, bearer, step=151) == 200
    for pod in pods:
        played.has_stopped(api, pod)
    status = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    shown = (status["progress"]["step"], status["checkpoints"][-1]["step"], status["endedAttempts"][0]["step"])
    assert shown == (151, 151, 151)
