"""Checkpoints of a job: each is judged under its step, the best one alone by the gates, and one of them is served."""

from __future__ import annotations

import json

import pytest

from finetune_api.pod_contracts.outcome import EvaluationReport
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, stalled
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, evaluation_report
from tests.integration.operator.serving import is_trained

pytestmark = pytest.mark.usefixtures("operator")

ROUTER = {"fineTuneJobRef": {"name": "router"}}


def has_kept(api: Api, *steps: int) -> None:
    """A finished job with checkpoints of these steps: that it has trained is played."""
    is_trained(api)
    kept = [
        {"step": step, "uri": f"s3://models/checkpoints/step-{step:06d}/claim-000001", "digest": f"sha256:{step}"}
        for step in steps
    ]
    status = api.get("FineTuneJob", "router")["status"]
    changes = {"checkpoints": kept, "startingModel": {"uri": "s3://models/base"}}
    api.put_status("FineTuneJob", "router", {**status, **changes})


def evaluates(api: Api, checkpoint: object) -> Object:
    candidate = {"name": "tuned", "model": {**ROUTER, "checkpoint": checkpoint}}
    return api.create("Evaluation", "router", {**EVALUATION, "candidates": [candidate]})


def scores_of(*tuned: tuple[int, float]) -> EvaluationReport:
    (baseline, *_) = evaluation_report(tuned=0.5).scores
    candidates = [
        evaluation_report(tuned=mean).scores[1].model_copy(update={"candidate": f"tuned-step-{step}"})
        for step, mean in tuned
    ]
    return EvaluationReport(scores=[baseline, *candidates], report_uri="s3://models/finetune/report.json")


def test_all_checkpoints_are_evaluated_and_the_best_one_decides(api: Api) -> None:
    has_kept(api, 100, 200)
    evaluation = evaluates(api, "All")
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    models = json.loads(played.run_files(api, pod)["run.json"])["models"]
    assert [model["name"] for model in models] == ["baseline", "tuned-step-100", "tuned-step-200"]
    assert models[1]["model"]["checkpoint"]["digest"] == "sha256:100"

    played.ends(api, pod, scores_of((100, 0.75), (200, 0.3)))
    status = api.wait_reason("Evaluation", "router", "Evaluated")["status"]

    assert (status["phase"], status["bestCheckpoints"][0]["step"]) == ("Passed", 100)
    assert [gate["candidate"] for gate in status["gates"]] == ["tuned-step-100"]
    assert status["summary"].startswith("tuned-step-100: exact 0.750")


def test_a_step_that_is_not_there_is_reported_with_those_that_are(api: Api) -> None:
    has_kept(api, 100, 200)
    evaluates(api, 150)
    waiting = api.wait_reason("Evaluation", "router", "ReferenceNotFound")
    assert "has no checkpoint of step 150. It has kept those of the steps 100, 200" in stalled(waiting)[1]


def test_a_checkpoint_is_served_once_the_same_one_has_passed(api: Api) -> None:
    has_kept(api, 100, 200)
    evaluation = evaluates(api, 100)
    deployment = api.create("ModelDeployment", "router", {**DEPLOYMENT, "model": {**ROUTER, "checkpoint": 100}})
    api.wait_reason("ModelDeployment", "router", "WaitingForGate")
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.75))
    (serving,) = api.wait_children(deployment, "serve", "Pod")
    model = json.loads(played.run_files(api, serving)["run.json"])["model"]
    assert (model["uri"], model["checkpoint"]["step"]) == ("s3://models/base", 100)
