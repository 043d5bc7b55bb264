"""What others do to a job's Pods: sidecars, evictions, orphans, labels and annotations that say anything."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_operator.pods.job_outcome import SIDECAR_SECONDS
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import (
    JOB,
    PREFLIGHT_REPORT,
    RESULT,
    TRAIN_REPORT,
    preflight_succeeds,
    starts_training,
)
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")
RESULT_STEP = 750


def ends_beside_a_sidecar(
    api: Api, pod: Object, message: str, exit_code: int = 0, clock_ahead: timedelta = timedelta(0)
) -> None:
    """Our container has ended; a mesh's proxy goes on, and so does the Pod. `clock_ahead`: of the node's clock."""
    moment = f"{datetime.now(UTC) + clock_ahead:%Y-%m-%dT%H:%M:%SZ}"
    ended = {
        "exitCode": exit_code,
        "reason": "Completed",
        "message": message,
        "startedAt": moment,
        "finishedAt": moment,
    }
    statuses = [container_status("istio-proxy", {"running": {"startedAt": moment}})]
    statuses.append(container_status("trainer", {"terminated": ended}))
    body = {"phase": "Running", "containerStatuses": statuses}
    api.patch("Pod", pod["metadata"]["name"], {"status": body}, "status")


def container_status(name: str, state: Object) -> Object:
    return {"name": name, "image": "a", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def test_a_job_whose_pods_never_end_for_a_sidecar_succeeds(api: Api) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "parallelism": {"nodes": 1}})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
    ends_beside_a_sidecar(api, pod, to_termination_message(PREFLIGHT_REPORT))
    (pod,) = api.wait_children(job, "train", "Pod")
    played.runs(api, pod)
    api.wait_reason("FineTuneJob", "router", "Training")
    said = to_termination_message(played.in_its_folder(api, pod, TRAIN_REPORT))
    # By that clock, our container has not ended yet: what is said of the sidecar stands until the clock is put right.
    ends_beside_a_sidecar(api, pod, said, clock_ahead=timedelta(hours=1))
    named = api.wait("FineTuneJob", "router", lambda found: "istio-proxy" in condition(found, "Ready")["message"])
    assert named["status"]["phase"] == "Training"
    ends_beside_a_sidecar(api, pod, said, clock_ahead=-timedelta(seconds=SIDECAR_SECONDS))

    def is_done() -> bool:
        # No kubelet corrects the time of an end: nothing else would let the operator look before the hour is over.
        api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})
        return bool(condition(api.get("FineTuneJob", "router"), "Ready")["reason"] == "Succeeded")

    wait_for(is_done, "its outcome is known")
    done = api.get("FineTuneJob", "router")
    assert condition(done, "Ready")["status"] == "True"
    wait_for(lambda: not api.children_of(job, "train", "Job"), "the Job that does not end is ended")


def test_a_class_lets_its_pods_into_a_mesh_whose_sidecar_never_ends(api: Api) -> None:
    name = f"mesh-{secrets.token_hex(4)}"
    labels = {"sidecar.istio.io/inject": "true", "example.com/cost-center": "research"}
    api.create("FineTuneClass", name, {**CLASS, "podMetadata": {"labels": labels}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": name, "parallelism": {"nodes": 1}})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    assert labels.items() <= pod["metadata"]["labels"].items()
    assert "sidecar.istio.io/inject" not in pod["metadata"]["annotations"]
    ends_beside_a_sidecar(api, pod, to_termination_message(PREFLIGHT_REPORT))
    (pod,) = api.wait_children(job, "train", "Pod")
    assert labels.items() <= pod["metadata"]["labels"].items()
    played.runs(api, pod)
    ends_beside_a_sidecar(api, pod, to_termination_message(played.in_its_folder(api, pod, TRAIN_REPORT)))
    api.wait_reason("FineTuneJob", "router", "Succeeded")
    wait_for(lambda: not api.children_of(job, "train", "Job"), "the Job that does not end is ended")


def test_an_eviction_is_remembered_though_the_pod_is_gone(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    evicted = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    name = pods[1]["metadata"]["name"]
    api.patch("Pod", name, {"status": {"conditions": [evicted]}}, "status")
    seen = api.wait("FineTuneJob", "router", lambda found: "disruption" in found["status"]["attempt"])
    assert seen["status"]["attempt"]["disruption"]["reason"] == "EvictionByEvictionAPI"
    api.request("DELETE", api.path("Pod", name), {"gracePeriodSeconds": 0})
    played.ends(api, pods[0], "", 143)
    after = api.wait("FineTuneJob", "router", lambda found: bool(found["status"].get("endedAttempts")))["status"]
    (ended,) = after["endedAttempts"]
    assert (ended["outcome"], ended["reason"]) == ("Disrupted", "EvictionByEvictionAPI")
    assert "Eviction API: evicting" in ended["message"]


def test_what_pods_without_our_labels_report_is_how_the_attempt_ended(api: Api) -> None:
    """Below Kubernetes 1.30 nobody keeps them from being taken away, and no watch tells of the Pods' end then."""
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    gone = {name: None for name in pods[0]["metadata"]["labels"] if name.startswith("finetune.dev/")}
    for pod in pods:
        api.patch("Pod", pod["metadata"]["name"], {"metadata": {"labels": gone}})
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    assert api.wait_reason("FineTuneJob", "router", "Succeeded")["status"]["result"]["step"] == RESULT_STEP


def test_a_job_that_is_deleted_without_its_pods(api: Api) -> None:
    """Nothing starts beside them, and the words say that nobody told them to stop."""
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    status = api.get("FineTuneJob", "router")["status"]
    status["attempt"]["startTime"] = played.MOMENT
    api.put_status("FineTuneJob", "router", status)
    api.request("DELETE", api.path("Job", train["metadata"]["name"]), {"propagationPolicy": "Orphan"})
    names = sorted(pod["metadata"]["name"] for pod in pods)
    waits = api.wait("FineTuneJob", "router", lambda found: "orphan" in condition(found, "Ready")["message"])
    message = condition(waits, "Ready")["message"]
    assert f"Pod {names[0]} is still running" in message
    assert f"kubectl delete pod {' '.join(names)}" in message
    assert "save and end" not in message
    assert not api.children_of(job, "train", "Job")
    for name in names:
        api.request("DELETE", api.path("Pod", name), {"gracePeriodSeconds": 0})
    (again,) = api.wait_children(job, "train", "Job")
    assert again["metadata"]["name"] != train["metadata"]["name"]


def test_a_job_whose_owner_references_were_removed(api: Api) -> None:
    """Nothing starts beside it, the words say what to do, and done so the run goes on."""
    job = api.create("FineTuneJob", "router", JOB)
    train, _ = starts_training(api, job)
    name = train["metadata"]["name"]
    status = api.get("FineTuneJob", "router")["status"]
    status["attempt"]["startTime"] = played.MOMENT
    api.put_status("FineTuneJob", "router", status)
    api.patch("Job", name, {"metadata": {"ownerReferences": None}})
    api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": "1"}}})
    waits = api.wait("FineTuneJob", "router", lambda found: "kubectl delete" in condition(found, "Ready")["message"])
    assert f"kubectl delete job {name}" in condition(waits, "Ready")["message"]
    assert [one["metadata"]["name"] for one in api.children_of(job, "train", "Job")] == [name]
    api.delete("Job", name)
    (again,) = api.wait_children(job, "train", "Job")
    assert again["metadata"]["name"] != name


def test_a_job_that_lost_its_labels_while_it_waits_in_a_queue_is_stopped_as_ever(api: Api) -> None:
    """It has no Pod that it could be found by."""
    queued = f"queued-{secrets.token_hex(4)}"
    api.create("FineTuneClass", queued, {**CLASS, "scheduling": {"queueName": "gpus"}})
    train = preflight_succeeds(api, api.create("FineTuneJob", "router", {**JOB, "className": queued}))
    name = train["metadata"]["name"]
    api.wait("FineTuneJob", "router", lambda found: "attempt" in found["status"])
    api.patch("Job", name, {"metadata": {"labels": {"finetune.dev/owner-uid": None}}})
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    status = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    assert [ended["outcome"] for ended in status["endedAttempts"]] == ["Suspended"]
    assert not api.exists("Job", name)


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        ({}, {"batch.kubernetes.io/job-completion-index": "abc"}),
        ({"finetune.dev/role": None}, {"batch.kubernetes.io/job-completion-index": "-1"}),
        ({"batch.kubernetes.io/controller-uid": "nobody"}, {"batch.kubernetes.io/job-completion-index": "9" * 30}),
        ({"finetune.dev/role": "nonsense"}, {}),
    ],
    ids=["an index that is none", "no role", "an index beyond numbers", "a role that is none"],
)
def test_a_pod_with_our_labels_that_says_nonsense(
    api: Api, operator: OperatorProcess, labels: dict[str, Any], annotations: dict[str, str]
) -> None:
    """It has the FineTuneJob as its controller too, so it is one of before, and goes. The log has no traceback."""
    job = api.create("FineTuneJob", "router", {**JOB, "parallelism": {"nodes": 1}})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    known = {name: value for name, value in pod["metadata"]["labels"].items() if not name.startswith("batch.")}
    wanted = {name: value for name, value in {**known, **labels}.items() if value is not None}
    meta = {
        "name": "stranger",
        "labels": wanted,
        "annotations": {"finetune.dev/owner": "FineTuneJob/router", **annotations},
        "ownerReferences": pod["metadata"]["ownerReferences"],
    }
    spec = {"containers": [{"name": "a", "image": "a"}], "restartPolicy": "Never"}
    api.request("POST", api.path("Pod"), {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    played.waits(api, pod, "ImagePullBackOff", "Back-off pulling image")
    api.wait("FineTuneJob", "router", lambda found: stalled(found)[0] == "ImagePullFailed")
    assert "Traceback" not in operator.log.read_text()
    wait_for(lambda: not api.exists("Pod", "stranger"), "the operator has removed it")
    preflight_succeeds(api, job)


def test_a_run_id_that_comes_again_after_ten_others_truly_runs(api: Api) -> None:
    """What git does when it is rolled back. The runs between are played in the status."""
    job = api.create("FineTuneJob", "router", {**JOB, "parallelism": {"nodes": 1}})
    train = preflight_succeeds(api, job)
    (pod,) = api.wait_children(job, "train", "Pod")
    played.runs(api, pod)
    api.wait_reason("FineTuneJob", "router", "Training")
    played.ends(api, pod, TRAIN_REPORT)
    first = api.wait_reason("FineTuneJob", "router", "Succeeded")["status"]
    api.patch("FineTuneJob", "router", {"spec": {"runId": "r12", "suspend": True}})
    newest = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    past = {"phase": "Succeeded", "reason": "Succeeded", "completionTime": played.MOMENT}
    history = [{"runId": f"r{number}", **past} for number in range(2, 12)]
    api.put_status("FineTuneJob", "router", {**newest, "runNumber": 12, "history": history})
    rollback = {"hyperparameters": {"epochs": 7}, "runId": "1", "suspend": False}
    api.patch("FineTuneJob", "router", {"spec": rollback})
    again = api.wait("FineTuneJob", "router", lambda found: found["status"]["runId"] == "1")["status"]
    assert "result" not in again
    assert again["storageUri"] != first["storageUri"]
    assert {run["runId"] for run in again["history"]} >= {"r12"}

    def new_pods() -> list[Object]:
        return [item for item in api.children_of(job, "preflight", "Pod") if item["status"]["phase"] == "Pending"]

    wait_for(lambda: len(new_pods()) == 1, "a preflight Pod of the new run")
    played.ends(api, new_pods()[0], PREFLIGHT_REPORT)
    wait_for(lambda: len(api.children_of(job, "train", "Job")) == 2, "a training Job of the new run")
    names = {item["metadata"]["name"] for item in api.children_of(job, "train", "Job")}
    assert train["metadata"]["name"] in names


def test_the_numbers_of_a_job_that_succeeded_are_its_results(api: Api) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "parallelism": {"nodes": 1}})
    preflight_succeeds(api, job)
    (pod,) = api.wait_children(job, "train", "Pod")
    played.runs(api, pod)
    training = api.wait_reason("FineTuneJob", "router", "Training")["status"]
    stale = Progress(
        step=1,
        total_steps=RESULT_STEP,
        percent=0,
        epoch=0.01,
        loss=6.4016,
        estimated_remaining_seconds=90,
        last_updated_time=datetime.now(UTC).replace(microsecond=0),
    )
    api.put_status("FineTuneJob", "router", {**training, "progress": stale.to_wire()})
    report = TRAIN_REPORT.model_copy(update={"result": RESULT.model_copy(update={"train_loss": 0.042})})
    played.ends(api, pod, report)
    done = api.wait_reason("FineTuneJob", "router", "Succeeded")["status"]
    shown = done["progress"]
    assert (shown["loss"], shown["evalLoss"], shown["estimatedRemainingSeconds"]) == (0.042, 0.5, 0)
    assert (shown["step"], shown["totalSteps"], shown["percent"]) == (RESULT_STEP, RESULT_STEP, 100)
    assert shown["epoch"] == done["resolved"]["epochs"]


def test_what_only_another_spec_can_help_ends_the_run_at_once(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    words = "hyperparameters.maxLength is 100000, beyond the model's context of 512 tokens."
    played.ends(api, pod, Failure(reason=Reason.INVALID_SPEC, message=words))
    over = api.wait("FineTuneJob", "router", lambda found: condition(found, "Failed").get("status") == "True")
    assert over["status"]["phase"] == "Failed"
    reason, message = stalled(over)
    assert reason == "InvalidSpec"
    assert words in message
    assert "change runId" in message
    assert "Tried again" not in message
    assert len(api.children_of(job, "preflight", "Pod")) == 1
    assert "completionTime" in over["status"]
    api.patch("FineTuneJob", "router", {"spec": {"runId": "2", "hyperparameters": {"maxLength": 128}}})
    anew = api.wait_reason("FineTuneJob", "router", "Validating")
    assert condition(anew, "Failed") == {}
