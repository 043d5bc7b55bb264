"""The operator may die at any time: nothing is lost, nothing is started twice, and deletion does not need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import COLLECTED_SECONDS, Api, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB, NETWORK_FAILURE, TRAIN_REPORT, preflight_succeeds, starts_training
from tests.integration.operator.process import OperatorProcess


@pytest.fixture
def killed(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, which runs again at the end whatever the test did."""
    yield operator
    if not operator.is_running():
        operator.start()


def test_killed_in_the_middle_of_training(api: Api, killed: OperatorProcess) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    train, _ = starts_training(api, job)
    before = api.get("FineTuneJob", "router")
    killed.kill()
    killed.start()
    (same,) = api.children_of(job, "train", "Job")
    assert same["metadata"]["uid"] == train["metadata"]["uid"]
    pods = api.children_of(job, "train", "Pod")
    assert len(pods) == 2
    assert api.get("FineTuneJob", "router")["status"] == before["status"]
    for pod in pods:
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        played.ends(api, pod, TRAIN_REPORT if index == "0" else "")
    done = api.wait_reason("FineTuneJob", "router", "Succeeded")
    assert done["status"]["attempt"] == {**before["status"]["attempt"], "state": "Succeeded"}


def test_what_happens_while_it_is_down_is_seen_afterwards(api: Api, killed: OperatorProcess) -> None:
    trained = api.create("FineTuneJob", "trained", JOB)
    _, pods = starts_training(api, trained)
    deleted = api.create("FineTuneJob", "deleted", JOB)
    preflight_succeeds(api, deleted)
    killed.kill()
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod is pods[0] else "")
    api.delete("FineTuneJob", "deleted")
    api.create("FineTuneJob", "new", JOB)
    uid = deleted["metadata"]["uid"]
    gone = "the deleted job's children go without the operator"
    wait_for(lambda: not any(api.children(uid).values()), gone, COLLECTED_SECONDS)
    killed.start()
    api.wait_reason("FineTuneJob", "trained", "Succeeded")
    api.wait_reason("FineTuneJob", "new", "Validating")


def test_an_attempt_that_was_made_but_not_written_down_is_not_made_twice(api: Api, killed: OperatorProcess) -> None:
    """As after a crash between making the Job and writing the status, which is played by putting the status back.

    Meanwhile the class changed, so that the same attempt would be described in other words. It has started: one that
    has not is made anew (test_class_corrected).
    """
    name = f"class-{api.namespace}"
    api.create("FineTuneClass", name, CLASS)
    job = api.create("FineTuneJob", "router", {**JOB, "className": name})
    _, pods = starts_training(api, job)
    played.ends(api, pods[0], NETWORK_FAILURE)
    retrying = api.wait_reason("FineTuneJob", "router", "Retrying")["status"]
    killed.kill()
    due = {**retrying, "attempt": {**retrying["attempt"], "nextTime": played.MOMENT}}
    api.put_status("FineTuneJob", "router", due)
    killed.start()
    made = {item["metadata"]["uid"] for item in api.wait_children(job, "train", "Job", 2)}
    api.wait_reason("FineTuneJob", "router", "Queued")
    for pod in api.wait_children(job, "train", "Pod", 3):  # one is what failed; its Job has taken the other away
        if pod["status"]["phase"] == "Pending":
            played.runs(api, pod)
    api.wait_reason("FineTuneJob", "router", "Training")

    killed.kill()
    api.put_status("FineTuneJob", "router", due)
    api.patch("FineTuneClass", name, {"spec": {"storage": {"prefix": "elsewhere"}, "resources": {"cpu": "2"}}})
    killed.start()
    attempt = api.wait_reason("FineTuneJob", "router", "Training")["status"]["attempt"]
    assert (attempt["number"], attempt["retries"]) == (2, 1)
    assert {item["metadata"]["uid"] for item in api.children_of(job, "train", "Job")} == made
    api.delete("FineTuneClass", name)
