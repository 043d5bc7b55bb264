"""spec.nodes on a real Job controller: an Indexed Job, of which the first Pod reports."""

from __future__ import annotations

import json

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.jobs import EVALUATION, evaluation_report
from tests.integration.operator.serving import is_trained

pytestmark = pytest.mark.usefixtures("operator")
INDEX = "batch.kubernetes.io/job-completion-index"


def on_two_nodes(api: Api) -> tuple[Object, list[Object]]:
    is_trained(api)
    evaluation = api.create("Evaluation", "router", {**EVALUATION, "nodes": 2})
    return evaluation, by_index(api.wait_children(evaluation, "evaluate", "Pod", 2))


def by_index(pods: list[Object]) -> list[Object]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["annotations"][INDEX]))


def test_each_pod_has_an_index_and_the_first_one_ends_the_run(api: Api) -> None:
    """The other one finds no node all the while."""
    _, (first, other) = on_two_nodes(api)
    assert [pod["metadata"]["annotations"][INDEX] for pod in (first, other)] == ["0", "1"]
    assert json.loads(played.run_files(api, first)["run.json"])["nodes"] == 2
    played.runs(api, first)
    played.ends(api, first, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")["status"]
    assert [score["score"] for score in done["results"]] == [0.25, 0.75]


def test_the_end_of_a_further_pod_says_nothing_yet(api: Api) -> None:
    _, (first, other) = on_two_nodes(api)
    played.ends(api, other, "")
    wait_for(lambda: api.get("Pod", other["metadata"]["name"])["status"]["phase"] == "Succeeded", "it has ended")
    played.ends(api, first, evaluation_report(tuned=0.75))
    api.wait_reason("Evaluation", "router", "Evaluated")


def test_if_one_pod_is_disrupted_all_are_made_again_and_it_never_counts(api: Api) -> None:
    evaluation, (_, other) = on_two_nodes(api)
    played.is_disrupted(api, other)
    retrying = api.wait_reason("Evaluation", "router", "Retrying")["status"]
    assert (retrying["disruptions"], retrying.get("retries", 0)) == (1, 0)
    api.put_status("Evaluation", "router", {**retrying, "retryTime": played.MOMENT})
    job = api.wait("Evaluation", "router", lambda found: found["status"].get("try") == 2)["status"]["jobName"]

    def of_the_next_try() -> list[Object]:
        pods = api.children_of(evaluation, "evaluate", "Pod")
        return [pod for pod in pods if pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job]

    wait_for(lambda: len(of_the_next_try()) == 2, "both Pods of the next try")


def test_the_class_limits_the_nodes_and_a_lower_number_is_no_new_run(api: Api) -> None:
    is_trained(api)
    with pytest.raises(RefusedError, match=r"spec\.nodes"):
        api.create("Evaluation", "many", {**EVALUATION, "nodes": 65})
    evaluation = api.create("Evaluation", "router", {**EVALUATION, "nodes": 9})
    limited = api.wait_reason("Evaluation", "router", "LimitExceeded")
    assert "spec.nodes is 9; FineTuneClass 'cpu' allows 8" in stalled(limited)[1]
    api.patch("Evaluation", "router", {"spec": {"nodes": 1}})
    api.wait_children(evaluation, "evaluate", "Pod")
    assert condition(api.wait_reason("Evaluation", "router", "Evaluating"), "Stalled")["status"] == "False"
