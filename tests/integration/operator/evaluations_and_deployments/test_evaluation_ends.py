"""The end of an Evaluation's run is written down before its Pods go, and a run without scores never passes."""

from __future__ import annotations

import json
import secrets

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, condition
from tests.integration.operator.api_proxy import Fault, LoseAnswer, Request
from tests.integration.operator.jobs import EVALUATION, LINE_7, evaluation_report
from tests.integration.operator.lives import Stage
from tests.integration.operator.serving import is_trained

DATA = {"uri": "s3://data/outputs.jsonl"}
NO_MODEL = {"candidates": [{"name": "tuned", "model": {"outputs": DATA}}], "baseline": {"model": {"outputs": DATA}}}


def test_an_operator_that_is_killed_while_it_clears_away_has_written_the_scores_down(quiet_stage: Stage) -> None:
    with quiet_stage.life(f"clears-{secrets.token_hex(4)}") as life:
        api = life.api
        spec = {**EVALUATION, **NO_MODEL, "ttlSecondsAfterFinished": 0}
        made = api.create("Evaluation", "judge", spec)
        life.wait(lambda: bool(api.children_of(made, "evaluate", "Pod")), "a Pod")
        killed: list[str] = []

        def kill_at_deletion(request: Request) -> Fault | None:
            if request.method != "DELETE" or "/jobs/" not in request.path or killed:
                return None
            killed.append(request.path)
            return LoseAnswer(life.operator.kill)

        life.lane.intercept = kill_at_deletion
        (pod,) = api.children_of(made, "evaluate", "Pod")
        played.ends(api, pod, evaluation_report(tuned=0.75))
        life.wait(lambda: bool(killed), "its Job is deleted")
        life.wait(lambda: api.get("Evaluation", "judge")["status"].get("phase") == "Passed", "its scores are judged")
        life.wait(lambda: api.children_of(made, "evaluate", "Job") == [], "its Job is gone")
        begun = [json.loads(one.request.body)["kind"] for one in life.lane.writes if one.request.method == "POST"]
        assert begun.count("Job") == 1, "it evaluates once"


@pytest.mark.usefixtures("operator")
def test_a_run_that_failed_does_not_pass_when_another_run_id_has_come_and_gone(api: Api) -> None:
    is_trained(api)
    evaluation = api.create("Evaluation", "router", {**EVALUATION, "gates": []})
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, LINE_7)
    api.wait_reason("Evaluation", "router", "DatasetInvalid")
    api.patch("Evaluation", "router", {"spec": {"runId": "2", "suspend": True}})
    api.wait_reason("Evaluation", "router", "Suspended")
    api.patch("Evaluation", "router", {"spec": {"runId": "1", "suspend": False}})
    back = api.wait("Evaluation", "router", lambda found: found["status"].get("phase") != "Suspended")
    assert back["status"]["phase"] == "Failed"
    assert (condition(back, "Failed")["reason"], condition(back, "Passed")) == ("DatasetInvalid", {})
