"""The demo's own scenario, asserted: the tuned model beats its base on examples that neither has seen."""

from __future__ import annotations

import time
from typing import Any

import pytest

from e2e.conftest import Shown
from e2e.demo import scenario
from e2e.demo.api import Api, condition
from e2e.demo.scenario import NAME, NAMESPACE, Platform, Tuned
from e2e.release import NAMESPACE as OPERATOR_NAMESPACE
from e2e.steps import step

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

GONE_SECONDS = 60.0


@pytest.fixture(scope="module")
def tuned(platform: Platform, shown: Shown) -> Tuned:
    """The quickstart, run once; the operator's Pod is killed in the middle of the training."""
    with shown():
        scenario.apply(platform)
        with step("Kill the operator's Pod in the middle of the training"):
            before = _job_uids_once_training(platform.api)
            platform.api.kubectl("-n", OPERATOR_NAMESPACE, "delete", "pods", "--all", "--grace-period=0", "--force")
        tuned = scenario.follow(platform)
        assert _training_jobs(platform.api) == before
    return tuned


def test_tuned_model_beats_its_base_on_held_out_examples(tuned: Tuned) -> None:
    scores = {(score["candidate"], score["grader"]): score for score in tuned.evaluation["status"]["results"]}
    base, better = scores["baseline", "exact-match"], scores["tuned", "exact-match"]
    assert better["low"] > base["high"]
    assert better["deltaLow"] > 0.2
    assert scores["tuned", "valid-json"]["score"] >= 0.95
    assert condition(tuned.evaluation, "Passed")["status"] == "True"


def test_two_pods_trained(platform: Platform, tuned: Tuned) -> None:
    (name,) = _training_jobs(platform.api)
    job = platform.api.kubectl("-n", NAMESPACE, "get", "job", name, "-o", "jsonpath={.status.succeeded}")
    assert job == "2"


def test_killed_operator_started_nothing_twice(tuned: Tuned) -> None:
    assert tuned.job["status"]["attempt"]["number"] == 1


def test_deployed_model_answers_as_it_was_judged(platform: Platform, tuned: Tuned) -> None:
    messages, reference = scenario.held_out_example()
    answer = scenario.ask(platform, tuned.deployment, messages)
    assert answer.startswith('{"domain": "'), (answer, reference)
    assert tuned.deployment["status"]["revision"] == tuned.job["status"]["result"]["digest"]


def test_status_says_what_was_trained(tuned: Tuned) -> None:
    status = tuned.job["status"]
    assert status["phase"] == "Succeeded"
    assert status["progress"]["percent"] == 100
    assert status["dataset"]["training"]["examples"] > 0
    assert status["result"]["step"] > 0


def test_deleting_the_job_removes_everything_of_it(platform: Platform, tuned: Tuned) -> None:
    uid = tuned.job["metadata"]["uid"]
    platform.api.kubectl("-n", NAMESPACE, "delete", "ftj", NAME)
    deadline = time.monotonic() + GONE_SECONDS
    while left := platform.api.kubectl(
        *("-n", NAMESPACE, "get", "jobs,pods,services,configmaps", "-o", "name"),
        *("-l", f"finetune.dev/owner-uid={uid}"),
    ):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def _training_jobs(api: Api) -> dict[str, str]:
    """Name -> UID of every training Job."""
    listed = api.kubectl(
        *("-n", NAMESPACE, "get", "jobs", "-l", "finetune.dev/role=train"),
        *("-o", "jsonpath={range .items[*]}{.metadata.name}={.metadata.uid}{'\\n'}{end}"),
    )
    return dict(line.split("=") for line in listed.split())


def _job_uids_once_training(api: Api) -> dict[str, str]:
    deadline = time.monotonic() + 300
    while True:
        status: dict[str, Any] = api.get(scenario.JOBS, NAMESPACE, NAME).get("status", {})
        if status.get("phase") == "Training":
            return _training_jobs(api)
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
