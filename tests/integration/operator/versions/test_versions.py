"""An operator of another version wrote the status: nothing of it is lost, and what is over does not begin again."""

from __future__ import annotations

import copy
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.finetunesweeps.trials import SWEEP, has_ended, wait_trial
from tests.integration.operator.jobs import (
    DATASET,
    DATASET_REPORT,
    DEPLOYMENT,
    EVALUATION,
    JOB,
    LOST_PEER,
    NETWORK_FAILURE,
    TRAIN_REPORT,
    evaluation_report,
    starts_training,
    trains,
)
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")

LATER = {"text": "x", "list": [1, {"a": {}}], "empty": []}
UNKNOWN_CONDITION = {
    "type": "OfLater",
    "status": "True",
    "reason": "Later",
    "message": "",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-22T12:00:00Z",
}
KINDS = ("FineTuneJob", "Evaluation", "ModelDeployment", "FineTuneClass", "FineTuneSweep", "Dataset")


def settled(api: Api, kind: str) -> str:
    """An object of this kind that is done with what it has to do; returns its name."""
    if kind == "FineTuneClass":
        name = f"class-{api.namespace}"
        api.create(kind, name, CLASS)
        api.wait_reason(kind, name, "Valid")
        return name
    if kind == "FineTuneSweep":
        api.create(kind, "router", {**SWEEP, "budget": {"trials": 1}})
        has_ended(api, wait_trial(api, 1))
        api.wait_reason(kind, "router", "Succeeded")
        return "router"
    if kind == "Dataset":
        (pod,) = api.wait_children(api.create(kind, "router", DATASET), "dataset", "Pod")
        played.ends(api, pod, DATASET_REPORT)
        api.wait_reason(kind, "router", "Succeeded")
        return "router"
    trains(api, api.create("FineTuneJob", "router", JOB))
    if kind == "Evaluation":
        evaluation = api.create(kind, "router", EVALUATION)
        (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
        played.ends(api, pod, evaluation_report(tuned=0.75))
        api.wait_reason(kind, "router", "Evaluated")
    if kind == "ModelDeployment":
        api.create(kind, "router", {**DEPLOYMENT, "gate": None, "replicas": 0})
        api.wait_reason(kind, "router", "Available")
    return "router"


def touch(api: Api, kind: str, name: str) -> None:
    """A change that means nothing, and makes the operator look."""
    api.patch(kind, name, {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})


def enriched(status: Object) -> Object:
    """The status with more in it, at every level, as a newer version might write."""
    status = copy.deepcopy(status)

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for inner in list(value.values()):
                add(inner)
            value["addedLater"] = LATER
        for inner in value if isinstance(value, list) else ():
            add(inner)

    for name, value in status.items():
        if name != "candidateDigests":
            add(value)
    status["conditions"].append(UNKNOWN_CONDITION)
    status["addedLater"] = LATER
    for one in status.get("endedAttempts", []):
        one["outcome"] = "OfLater"
    return status


def looked(api: Api, kind: str, name: str, operator: OperatorProcess) -> Object:
    """The status after the operator has looked at it: a change of the spec shows that it has."""
    change = {
        "FineTuneClass": {"limits": {"nodes": 7}},
        "FineTuneJob": {"ttlSecondsAfterFinished": 86400},
        "FineTuneSweep": {"parallel": 7},
        "Dataset": {"ttlSecondsAfterFinished": 86400},
    }
    changed = {"Evaluation": {"gates": [{"grader": "exact", "minimumDelta": 0.2}, {"grader": "exact", "minimum": 0.1}]}}
    spec = {**change, **changed}.get(kind)
    before = api.get(kind, name)["metadata"]["generation"]
    if spec is None:
        api.patch(kind, name, {"spec": {"gate": {"evaluationRef": {"name": "none"}}}})
        api.patch(kind, name, {"spec": {"gate": None}})
    else:
        api.patch(kind, name, {"spec": spec})
    found = api.wait(
        kind,
        name,
        lambda item: (
            item["metadata"]["generation"] > before
            and item["status"].get("observedGeneration") == item["metadata"]["generation"]
            and condition(item, "Ready")["status"] == "True"
        ),
    )
    status: Object = found["status"]
    return status


def without_what_a_look_changes(status: Object) -> Object:
    """The generation that was seen, in the status and in the conditions that this version knows; gates are new ones."""
    kept = {name: value for name, value in status.items() if name not in ("observedGeneration", "gates")}
    kept["conditions"] = [
        {
            name: value
            for name, value in one.items()
            if one["type"] == "OfLater" or name not in ("observedGeneration", "lastTransitionTime")
        }
        for one in status["conditions"]
    ]
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_newer_version_added_is_kept_field_by_field(api: Api, operator: OperatorProcess, kind: str) -> None:
    name = settled(api, kind)
    newer = enriched(api.get(kind, name)["status"])
    assert api.put_status(kind, name, newer)["status"] == newer, "the API server lets it through"
    after = looked(api, kind, name, operator)
    assert without_what_a_look_changes(after) == without_what_a_look_changes(newer)
    assert [gate["addedLater"] for gate in after.get("gates", [])[:1]] == ([LATER] if "gates" in newer else [])
    if kind == "FineTuneClass":
        api.delete(kind, name)


@pytest.mark.parametrize(
    ("kind", "strange"),
    [
        ("FineTuneJob", {"phase": "Levitating"}),
        ("FineTuneJob", {"startTime": "soon"}),
        ("FineTuneJob", {"endedAttempts": [{"addedLater": LATER}]}),
        ("Evaluation", {"phase": "Levitating"}),
        ("Evaluation", {"completionTime": "soon"}),
        ("ModelDeployment", {"phase": "Levitating"}),
        ("FineTuneSweep", {"phase": "Levitating"}),
        ("Dataset", {"phase": "Levitating"}),
        ("Dataset", {"revision": {"addedLater": LATER, "format": "Chat"}}),
        ("Dataset", {"revision": {"splits": [{"name": "calibration"}]}}),
        ("Evaluation", {"progress": {"candidates": [{"candidate": "Tuned_1"}]}}),
        ("FineTuneSweep", {"trials": [{"number": 1, "fineTuneJobName": "router-trial-1", "state": "Paused"}]}),
    ],
)
def test_on_a_status_that_can_not_be_read_only_a_condition_is_written(
    api: Api, kind: str, strange: dict[str, Any]
) -> None:
    """That of a class is nothing but conditions, which the API server lets nobody write so that they can't be read."""
    name = settled(api, kind)
    before = api.get(kind, name)
    newer = {**enriched(before["status"]), **strange}
    newer["conditions"] = [one for one in newer["conditions"] if one["type"] != "Stalled"]
    api.put_status(kind, name, newer)
    touch(api, kind, name)
    found = api.wait(kind, name, lambda item: condition(item, "Stalled").get("reason") == "StatusUnreadable")
    rest = {**found["status"], "conditions": [one for one in found["status"]["conditions"] if one["type"] != "Stalled"]}
    assert rest == newer
    (mine,) = [
        entry
        for entry in found["metadata"]["managedFields"]
        if entry["manager"] == "finetune-operator-conditions" and entry.get("subresource") == "status"
    ]
    assert set(mine["fieldsV1"]["f:status"]) == {"f:conditions"}
    # The version that knows it is back: it says where it stands, and no condition is left over.
    made = {item["metadata"]["uid"] for item in api.items("Job")}
    known = [one for one in before["status"]["conditions"] if one["type"] != "Stalled"]
    stored = api.put_status(kind, name, {**before["status"], "conditions": known})
    assert condition(stored, "Stalled")["reason"] == "StatusUnreadable", "it is not that version's"
    touch(api, kind, name)
    wait_for(lambda: condition(api.get(kind, name), "Stalled").get("status") == "False", "it is read again")
    assert {item["metadata"]["uid"] for item in api.items("Job")} <= made, "nothing has started"


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_older_version_did_not_write_starts_nothing_again(
    api: Api, operator: OperatorProcess, kind: str
) -> None:
    """An older operator, or a schema of its time, knew less: the run is over all the same."""
    name = settled(api, kind)
    before = api.get(kind, name)["status"]
    ended = {"conditions", "observedGeneration", "phase", "runId", "completionTime"}
    # What a run came to was written by each version that knew the kind.
    needed = {*ended, "candidateDigests", "results", "revision"}
    older = {field: value for field, value in before.items() if field in needed}
    jobs = {item["metadata"]["uid"] for item in api.items("Job")} if kind != "FineTuneClass" else set()
    api.put_status(kind, name, older)
    after = looked(api, kind, name, operator)
    assert {field: after[field] for field in older if field not in ("conditions", "observedGeneration")} == {
        field: older[field] for field in older if field not in ("conditions", "observedGeneration")
    }
    if kind == "FineTuneClass":
        api.delete(kind, name)
        return
    assert {item["metadata"]["uid"] for item in api.items("Job")} == jobs


def as_an_older_version_wrote(status: Object) -> Object:
    """Without what this version added, in a run and in its attempt."""
    added = {"startingModel", "storageFolders"}
    of_attempt = {"state", "reportsTo", "disruption", "activeDeadlineSeconds"}
    older = {name: value for name, value in status.items() if name not in added}
    return {**older, "attempt": {name: value for name, value in status["attempt"].items() if name not in of_attempt}}


def in_midlife(api: Api, station: str) -> tuple[Object, list[Object]]:
    """A FineTuneJob at this station of its life, and the Pods of its first attempt."""
    job = api.create("FineTuneJob", "router", {**JOB, "retryLimit": 0 if station == "Failed" else 1})
    _, pods = starts_training(api, job)
    if station == "Suspended":
        api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    if station in ("Retrying", "Failed"):
        for pod in pods:
            played.is_bound(api, pod)
        for pod in pods:
            played.ends(api, pod, NETWORK_FAILURE if pod is pods[0] else LOST_PEER)
    api.wait("FineTuneJob", "router", lambda found: found["status"]["phase"] == station)
    return job, pods


@pytest.mark.parametrize("station", ["Training", "Retrying", "Suspended", "Failed"])
def test_a_run_goes_on_where_an_older_version_left_it(api: Api, station: str) -> None:
    """An upgrade in the middle: nothing that runs is ended, and nothing that is over begins again."""
    job, pods = in_midlife(api, station)
    older = as_an_older_version_wrote(api.get("FineTuneJob", "router")["status"])
    jobs = {item["metadata"]["uid"] for item in api.children_of(job, "train", "Job")}
    if station == "Retrying":
        # Long enough for the test; further away it would be a wrong clock's, and not waited for.
        older["attempt"]["nextTime"] = f"{datetime.now(UTC) + timedelta(seconds=500):%Y-%m-%dT%H:%M:%SZ}"
    api.put_status("FineTuneJob", "router", older)
    generation = api.get("FineTuneJob", "router")["metadata"]["generation"]
    api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 86400}})
    after = api.wait("FineTuneJob", "router", lambda found: found["status"].get("observedGeneration", 0) > generation)[
        "status"
    ]
    assert after["phase"] == station
    kept = ("runId", "runDigest", "storageUri", "endedAttempts", "failure", "resolved", "dataset")
    assert {name: after.get(name) for name in kept} == {name: older.get(name) for name in kept}
    counts = ("number", "jobName", "retries", "disruptions", "startTime")
    assert {name: after["attempt"].get(name) for name in counts} == {
        name: older["attempt"].get(name) for name in counts
    }
    assert {item["metadata"]["uid"] for item in api.children_of(job, "train", "Job")} == jobs
    _goes_on(api, job, station, pods)


def _goes_on(api: Api, job: Object, station: str, pods: list[Object]) -> None:
    """What follows is what would have followed without the upgrade."""
    if station == "Training":
        for pod in pods:
            played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
        api.wait_reason("FineTuneJob", "router", "Succeeded")
    if station == "Suspended":
        api.patch("FineTuneJob", "router", {"spec": {"suspend": False}})
    if station == "Retrying":
        status = api.get("FineTuneJob", "router")["status"]
        status["attempt"]["nextTime"] = played.MOMENT
        api.put_status("FineTuneJob", "router", status)
        touch(api, "FineTuneJob", "router")
    if station in ("Suspended", "Retrying"):
        found = api.wait("FineTuneJob", "router", lambda found: found["status"]["attempt"]["number"] == 2)["status"]
        assert found["attempt"]["retries"] == (1 if station == "Retrying" else 0)
        assert found["startingModel"] == {"uri": JOB["model"]["uri"]}
    if station == "Failed":
        changed = api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 86401}})
        generation = changed["metadata"]["generation"]
        seen = api.wait("FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == generation)
        assert condition(seen, "Failed")["status"] == "True"


def test_a_run_that_an_earlier_version_started_goes_on_without_another_attempt(api: Api) -> None:
    """It wrote no status.attempt.state."""
    train, pods = starts_training(api, api.create("FineTuneJob", "router", JOB))
    status = api.get("FineTuneJob", "router")["status"]
    assert status["attempt"].pop("state") == "Running"
    api.put_status("FineTuneJob", "router", status)
    touch(api, "FineTuneJob", "router")
    again = api.wait("FineTuneJob", "router", lambda item: item["status"]["attempt"].get("state") == "Running")
    assert again["status"] == {**status, "attempt": {**status["attempt"], "state": "Running"}}
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    done = api.wait_reason("FineTuneJob", "router", "Succeeded")["status"]
    assert [(end["number"], end["outcome"]) for end in done["endedAttempts"]] == [(1, "Succeeded")]
    assert done["attempt"]["jobName"] == train["metadata"]["name"]


@pytest.mark.parametrize("strange", [{"phase": "Levitating"}, {"addedLater": LATER}, {"startTime": "soon"}])
def test_the_gates_evaluation_of_another_version_opens_or_holds_and_never_breaks(api: Api, strange: Object) -> None:
    name = settled(api, "Evaluation")
    status = api.get("Evaluation", name)["status"]
    api.put_status("Evaluation", name, {**status, **strange})
    api.create("ModelDeployment", name, DEPLOYMENT)
    held = "startTime" in strange
    found = api.wait_reason("ModelDeployment", name, "WaitingForGate" if held else "RollingOut")
    assert bool(api.items("Deployment")) is not held
    if held:
        assert "can't be read by this version of the operator: status.startTime is 'soon'." in stalled(found)[1]
    assert "conditions" in found["status"]
