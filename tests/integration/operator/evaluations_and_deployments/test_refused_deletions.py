"""The API server refuses to delete a try that runs: it keeps what it needs, and no other starts beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.finetunejobs.webhooks import unanswered_webhook
from tests.integration.operator.jobs import EVALUATION, evaluation_report
from tests.integration.operator.serving import is_trained

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture
def evaluation(api: Api) -> Object:
    is_trained(api)
    evaluation = api.create("Evaluation", "router", EVALUATION)
    api.wait_children(evaluation, "evaluate", "Pod")
    return api.wait_reason("Evaluation", "router", "Evaluating")


@pytest.fixture
def job(api: Api, evaluation: Object) -> Object:
    (job,) = api.children_of(evaluation, "evaluate", "Job")
    return job


@pytest.fixture
def guarded(api: Api, job: Object) -> Iterator[str]:
    """Whoever deletes a Job is refused."""
    with unanswered_webhook(api, ["DELETE"], ["jobs"]) as path:
        wait_for(lambda: is_guarded(api, job), "the API server has heard of the webhook")
        yield path


def is_guarded(api: Api, job: Object) -> bool:
    try:
        api.request("DELETE", api.path("Job", job["metadata"]["name"]), {"dryRun": ["All"]})
    except RefusedError as error:
        return error.code == 500
    return False


def set_spec(api: Api, **changes: object) -> None:
    api.patch("Evaluation", "router", {"spec": changes})


def is_ours_to_delete(api: Api, job: Object, guarded: str) -> None:
    api.request("DELETE", guarded)
    wait_for(lambda: not is_guarded(api, job), "it is gone")
    api.patch("Evaluation", "router", {"metadata": {"annotations": {"touched": "sooner"}}})


def test_a_try_that_can_not_be_suspended_goes_on_with_its_run_configuration(
    api: Api, evaluation: Object, guarded: str
) -> None:
    """Its Pod may still wait for a node, and reads it when it starts."""
    (pod,) = api.children_of(evaluation, "evaluate", "Pod")
    set_spec(api, suspend=True)
    told = api.wait_reason("Evaluation", "router", "ObjectRejected")
    assert told["status"]["phase"] == "Evaluating"
    set_spec(api, suspend=False)
    api.wait("Evaluation", "router", lambda found: stalled(found) == ("", ""))
    assert "run.json" in played.run_files(api, pod)
    played.ends(api, pod, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert (done["try"], done.get("disruptions", 0)) == (1, 0)


def test_no_try_starts_beside_one_that_can_not_be_deleted(
    api: Api, evaluation: Object, job: Object, guarded: str
) -> None:
    (pod,) = api.children_of(evaluation, "evaluate", "Pod")
    played.runs(api, pod)
    set_spec(api, runId="2")
    told = api.wait_reason("Evaluation", "router", "ObjectRejected")
    assert (
        f"refuses to delete Job {job['metadata']['name']}, which may still run" in condition(told, "Ready")["message"]
    )
    assert [one["metadata"]["uid"] for one in api.children_of(evaluation, "evaluate", "Job")] == [
        job["metadata"]["uid"]
    ]
    assert "run.json" in played.run_files(api, pod)
    is_ours_to_delete(api, job, guarded)
    (another,) = wait_for_another(api, evaluation, pod)
    played.ends(api, another, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert (done["try"], done.get("retries", 0), done.get("disruptions", 0)) == (1, 0, 0)


def test_another_run_starts_beside_no_pod_that_is_still_ending(api: Api, evaluation: Object) -> None:
    (pod,) = api.children_of(evaluation, "evaluate", "Pod")
    played.is_bound(api, pod)
    played.runs(api, pod)
    set_spec(api, runId="2")
    stopping = api.wait_reason("Evaluation", "router", "Stopping")
    assert f"Waiting for Pod {pod['metadata']['name']}" in condition(stopping, "Ready")["message"]
    assert stopping["status"]["phase"] == "Waiting"
    assert [one["metadata"]["uid"] for one in api.children_of(evaluation, "evaluate", "Pod")] == [
        pod["metadata"]["uid"]
    ]
    played.has_stopped(api, pod)
    (another,) = wait_for_another(api, evaluation, pod)
    played.ends(api, another, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert (done["runId"], done["try"], done.get("disruptions", 0)) == ("2", 1, 0)


def wait_for_another(api: Api, evaluation: Object, pod: Object) -> list[Object]:
    def others() -> list[Object]:
        found = api.children_of(evaluation, "evaluate", "Pod")
        return [one for one in found if one["metadata"]["uid"] != pod["metadata"]["uid"]]

    wait_for(lambda: len(others()) == 1, "the next try has a Pod")
    return others()
