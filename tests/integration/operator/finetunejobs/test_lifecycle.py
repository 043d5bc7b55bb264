"""A job's way from its dataset to the served model, with Pods that are played and everything else real."""

from __future__ import annotations

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import (
    DEPLOYMENT,
    EVALUATION,
    JOB,
    LINE_7,
    LOST_PEER,
    PREFLIGHT_REPORT,
    RESULT,
    evaluation_report,
    preflight_succeeds,
    starts_training,
    trains,
)

pytestmark = pytest.mark.usefixtures("operator")


def expect_events(api: Api, *expected: str) -> None:
    """Wait for exactly these Events of the FineTuneJob; each follows the status that it tells of."""

    def told() -> list[str]:
        found = [item for item in api.items("Event") if item["involvedObject"]["kind"] == "FineTuneJob"]
        found.sort(key=lambda item: int(item["metadata"]["resourceVersion"]))
        return [f"{item['type']} {item['reason']}" for item in found]

    wait_for(lambda: told() == list(expected), f"the events {expected}")


def test_a_broken_line_is_named_and_a_mended_dataset_goes_on_by_itself(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.ends(api, pod, LINE_7)
    broken = api.wait_reason("FineTuneJob", "router", "DatasetInvalid")
    assert broken["status"]["dataset"]["errors"] == [
        {"file": "training", "line": 7, "message": "the last message is not the assistant's"}
    ]
    reason, message = stalled(broken)
    assert reason == "DatasetInvalid"
    assert "line 7: the last message is not the assistant's. Fix the line" in message
    assert "The next try starts at" in message

    # That the ten seconds are over is played; the timer itself is real where an attempt was disrupted, below.
    status = broken["status"]
    status["preflight"]["retryTime"] = played.MOMENT
    api.put_status("FineTuneJob", "router", status)
    assert stalled(api.get("FineTuneJob", "router"))[0] == "DatasetInvalid", "it stands until there is an answer"
    (newer,) = [
        item
        for item in api.wait_children(job, "preflight", "Pod", 2)
        if item["metadata"]["name"] != pod["metadata"]["name"]
    ]
    played.ends(api, newer, PREFLIGHT_REPORT)
    queued = api.wait_reason("FineTuneJob", "router", "Queued")
    assert stalled(queued) == ("", "")
    assert queued["status"]["resolved"]["totalSteps"] == 750
    assert "failure" not in queued["status"]
    expect_events(api, "Warning DatasetInvalid", "Normal Queued")


def test_training_runs_as_a_gang_that_can_find_each_other(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train = preflight_succeeds(api, job)
    spec, name = train["spec"], train["metadata"]["name"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (2, 2, "Indexed")
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    (service,) = api.children_of(job, "train", "Service")
    assert service["spec"]["clusterIP"] == "None"
    subdomain = service["metadata"]["name"]
    pods = api.wait_children(job, "train", "Pod", 2)
    for pod in pods:
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert pod["spec"]["hostname"] in {f"{name}-{index}" for index in range(2)}
        assert pod["spec"]["subdomain"] == subdomain


def test_a_job_is_trained_evaluated_and_served(api: Api) -> None:
    api.create("Evaluation", "router", EVALUATION)
    api.create("ModelDeployment", "router", DEPLOYMENT)
    job = api.create("FineTuneJob", "router", JOB)
    api.wait_reason("Evaluation", "router", "WaitingForModel")
    done = trains(api, job)
    assert condition(done, "Ready")["status"] == "True"
    assert done["status"]["result"] == {**RESULT.to_wire(), "uri": f"{done['status']['storageUri']}/result"}
    expect_events(api, "Normal Training", "Normal Succeeded")

    evaluation = api.wait_reason("Evaluation", "router", "Evaluating")
    assert not api.items("Deployment"), "nothing is served before its gate"
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.75))
    passed = api.wait_reason("Evaluation", "router", "Evaluated")
    assert condition(passed, "Passed")["status"] == "True"
    assert passed["status"]["summary"] == "exact 0.750 [0.700, 0.800] vs 0.250 [0.200, 0.300]"

    deployment = api.wait_reason("ModelDeployment", "router", "RollingOut")
    assert deployment["status"]["applied"]["digest"] == RESULT.digest
    assert "revision" not in deployment["status"], "no Pod answers"
    (server,) = api.wait_children(deployment, "serve", "Pod")
    played.ready(api, server)
    available = api.wait_reason("ModelDeployment", "router", "Available")
    assert condition(available, "Ready")["status"] == "True"
    assert available["status"]["url"] == f"http://router.{api.namespace}.svc/v1"
    assert available["status"]["readyReplicas"] == 1
    assert available["status"]["revision"] == RESULT.digest


def test_what_does_not_pass_its_gate_is_not_served_until_the_gate_allows_it(api: Api) -> None:
    api.create("FineTuneJob", "router", {**JOB, "suspend": True})
    status = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    # That it has trained is played here.
    api.put_status("FineTuneJob", "router", {**status, "phase": "Succeeded", "result": RESULT.to_wire()})
    evaluation = api.create("Evaluation", "router", EVALUATION)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.35))
    api.create("ModelDeployment", "router", DEPLOYMENT)
    refused = api.wait_reason("ModelDeployment", "router", "GateFailed")
    assert "gain over the baseline +0.100 [+0.050, +0.150], at least +0.200 required" in stalled(refused)[1]
    assert not api.items("Deployment")
    undecided = {"grader": "exact", "minimumDelta": 0.08}
    api.patch("Evaluation", "router", {"spec": {"gates": [undecided]}})
    waiting = api.wait_reason("ModelDeployment", "router", "Inconclusive")
    assert "250 examples are too few to decide; about 1313 more" in stalled(waiting)[1]
    judged = api.get("Evaluation", "router")
    assert (condition(judged, "Passed")["status"], judged["status"]["phase"]) == ("Unknown", "Inconclusive")
    assert not api.items("Deployment")
    lower = {"grader": "exact", "minimumDelta": 0.05}
    api.patch("Evaluation", "router", {"spec": {"gates": [lower]}})
    api.wait_reason("ModelDeployment", "router", "RollingOut")
    assert len(api.children_of(evaluation, "evaluate", "Job")) == 1, "gates are judged without a new run"


def test_suspend_frees_everything_and_resume_goes_on(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, _ = starts_training(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    suspended = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    assert api.children_of(job, "train", "Pod") == []
    assert api.children_of(job, "train", "Job") == []
    (ended,) = suspended["endedAttempts"]
    assert (ended["number"], ended["outcome"]) == (1, "Suspended")
    api.patch("FineTuneJob", "router", {"spec": {"suspend": False}})
    (second,) = api.wait_children(job, "train", "Job")
    assert second["metadata"]["name"] != train["metadata"]["name"]
    attempt = api.wait_reason("FineTuneJob", "router", "Queued")["status"]["attempt"]
    assert (attempt["number"], attempt["retries"], attempt["disruptions"]) == (2, 0, 0)
    expect_events(api, "Normal Training", "Normal Stopping", "Normal Suspended")


def test_the_next_attempt_starts_when_the_pods_of_the_one_before_have_ended(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    api.wait_reason("FineTuneJob", "router", "Stopping")
    wait_for(lambda: all(_is_deleted(pod) for pod in api.children_of(job, "train", "Pod")), "the Pods are told to stop")
    assert not api.exists("Job", train["metadata"]["name"])
    api.patch("FineTuneJob", "router", {"spec": {"suspend": False}})
    waits = api.wait_reason("FineTuneJob", "router", "Queued")
    assert "Waiting for 2 Pods to save and end" in condition(waits, "Ready")["message"]
    played.has_stopped(api, pods[0])
    wait_for(lambda: len(api.children_of(job, "train", "Pod")) == 1, "the first Pod is gone")
    assert api.children_of(job, "train", "Job") == []
    played.has_stopped(api, pods[1])
    (second,) = api.wait_children(job, "train", "Job")
    assert second["metadata"]["name"] != train["metadata"]["name"]


def test_a_run_is_cancelled_when_its_pods_have_ended(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    api.patch("FineTuneJob", "router", {"spec": {"cancel": True}})
    wait_for(lambda: all(_is_deleted(pod) for pod in api.children_of(job, "train", "Pod")), "the Pods are told to stop")
    stopping = api.wait_reason("FineTuneJob", "router", "Stopping")
    assert (stopping["status"]["phase"], stopping["status"].get("completionTime")) == ("Training", None)
    assert condition(stopping, "Failed") == {}
    played.has_stopped(api, pods[0])
    wait_for(lambda: len(api.children_of(job, "train", "Pod")) == 1, "the first Pod is gone")
    assert api.get("FineTuneJob", "router")["status"]["phase"] == "Training"
    played.has_stopped(api, pods[1])
    over = api.wait_reason("FineTuneJob", "router", "Cancelled")
    assert over["status"]["phase"] == "Cancelled"
    expect_events(api, "Normal Training", "Normal Stopping", "Normal Cancelled")


def _is_deleted(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_another_run_id_ends_what_runs_and_starts_over(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    for pod in pods:
        played.is_bound(api, pod)
    api.patch("FineTuneJob", "router", {"spec": {"runId": "2", "hyperparameters": {"epochs": 5}}})
    stopping = api.wait_reason("FineTuneJob", "router", "Stopping")
    assert (stopping["status"]["runId"], stopping["status"]["phase"]) == ("1", "Training")
    wait_for(lambda: all(_is_deleted(pod) for pod in api.children_of(job, "train", "Pod")), "the Pods are told to stop")
    for pod in pods:
        played.has_stopped(api, pod)
    fresh = api.wait("FineTuneJob", "router", lambda found: found["status"]["runId"] == "2")["status"]
    (run,) = fresh["history"]
    assert (run["runId"], run["phase"], run["reason"], run["attempts"]) == ("1", "Training", "Superseded", 1)
    assert not api.exists("Job", train["metadata"]["name"])
    attempt = _succeed_again(api, job)
    assert attempt["metadata"]["name"] != train["metadata"]["name"]


def test_limits_that_are_changed_within_a_run_hold_for_what_runs_and_begin_nothing(api: Api) -> None:
    """A raised retryLimit lets the run go on; a deadline that is already over ends it, and raised again stays over."""
    job = api.create("FineTuneJob", "router", {**JOB, "retryLimit": 0})
    train, pods = starts_training(api, job)
    before = api.get("FineTuneJob", "router")["status"]
    raised = api.patch("FineTuneJob", "router", {"spec": {"retryLimit": 1}})["metadata"]["generation"]
    api.wait("FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == raised)
    for pod in pods:
        played.is_bound(api, pod)
    crashed = LOST_PEER.model_copy(update={"lost_peer": False})
    for pod in pods:  # of Pods that all lost another one, a look between the two ends tells a disruption
        played.ends(api, pod, crashed if pod is pods[0] else LOST_PEER)
    retrying = api.wait_reason("FineTuneJob", "router", "Retrying")["status"]
    assert (retrying["attempt"]["retries"], retrying["runDigest"]) == (1, before["runDigest"])
    api.patch("FineTuneJob", "router", {"spec": {"activeDeadlineSeconds": 1}})
    ended = api.wait_reason("FineTuneJob", "router", "DeadlineExceeded")["status"]
    assert (ended["phase"], ended["storageUri"]) == ("Failed", before["storageUri"])
    api.patch("FineTuneJob", "router", {"spec": {"activeDeadlineSeconds": 86400, "retryLimit": 100}})
    after = api.wait(
        "FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"]
    )["status"]
    assert (after["phase"], after["completionTime"]) == ("Failed", ended["completionTime"])
    made = [item["metadata"]["name"] for item in api.children_of(job, "train", "Job")]
    assert made == [train["metadata"]["name"]], "the failed attempt's, for its logs, and no other"


def test_ttl_removes_the_pods_and_nothing_runs_again(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    done = trains(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 0}})
    uid = job["metadata"]["uid"]

    def nothing_is_left() -> bool:
        left = api.children(uid)
        return not (left["Job"] or left["Pod"] or left["ConfigMap"])

    wait_for(nothing_is_left, "Jobs, Pods and ConfigMaps are gone")
    # A touch makes the operator look again.
    api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 1}})
    after = api.wait(
        "FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"]
    )
    assert nothing_is_left()
    assert after["status"]["result"] == done["status"]["result"]


def test_kueue_starts_an_attempt_and_a_quota_that_it_takes_back_is_a_disruption(api: Api) -> None:
    """Kueue's part, spec.suspend of the Job, is played."""
    name = f"queued-{api.namespace}"
    api.create("FineTuneClass", name, {**CLASS, "scheduling": {"queueName": "gpus"}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": name})
    train = preflight_succeeds(api, job)
    assert (train["spec"]["suspend"], train["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "gpus")
    queued = api.wait_reason("FineTuneJob", "router", "Queued")
    assert "waiting for quota in queue 'gpus'" in condition(queued, "Ready")["message"]
    assert api.children_of(job, "train", "Pod") == []

    api.patch("Job", train["metadata"]["name"], {"spec": {"suspend": False}})
    for pod in api.wait_children(job, "train", "Pod", 2):
        played.runs(api, pod)
    api.wait_reason("FineTuneJob", "router", "Training")
    api.patch("Job", train["metadata"]["name"], {"spec": {"suspend": True}})
    second = api.wait("FineTuneJob", "router", lambda found: found["status"]["attempt"]["number"] == 2)["status"]
    (ended,) = second["endedAttempts"]
    assert (ended["outcome"], ended["reason"]) == ("Disrupted", "QuotaReclaimed")
    assert (second["attempt"]["retries"], second["attempt"]["disruptions"]) == (0, 1)
    (again,) = api.wait_children(job, "train", "Job")
    assert again["metadata"]["name"] == second["attempt"]["jobName"]
    assert again["spec"]["suspend"]
    api.delete("FineTuneClass", name)


def _succeed_again(api: Api, job: Object) -> Object:
    """Play the preflight that is not done yet."""

    def pending() -> list[Object]:
        return [pod for pod in api.children_of(job, "preflight", "Pod") if pod["status"]["phase"] == "Pending"]

    wait_for(lambda: len(pending()) == 1, "a preflight Pod of the new run")
    played.ends(api, pending()[0], PREFLIGHT_REPORT)
    (train,) = api.wait_children(job, "train", "Job")
    return train


def test_a_pod_that_is_deleted_is_a_disruption_and_the_next_attempt_follows(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    # That it has run for a while is played: of attempts that end at once the next one would wait ten seconds.
    status = api.get("FineTuneJob", "router")["status"]
    status["attempt"]["startTime"] = played.MOMENT
    api.put_status("FineTuneJob", "router", status)
    for pod in pods:
        played.is_bound(api, pod)
    api.delete("Pod", pods[1]["metadata"]["name"])
    played.has_stopped(api, pods[1])
    played.ends(api, pods[0], LOST_PEER)
    second = api.wait("FineTuneJob", "router", lambda found: found["status"]["attempt"]["number"] == 2)
    attempt = second["status"]["attempt"]
    assert (attempt["retries"], attempt["disruptions"]) == (0, 1)
    jobs = {item["metadata"]["name"] for item in api.children_of(job, "train", "Job")}
    assert jobs == {train["metadata"]["name"], attempt["jobName"]}, "the ended one is kept for its logs"
