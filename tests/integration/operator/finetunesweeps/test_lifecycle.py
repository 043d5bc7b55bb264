"""A search from its creation to the best trial, with Pods that are played and everything else real."""

from __future__ import annotations

import json

import pytest

from finetune_operator.core.ownership import owner_of
from finetune_operator.finetunesweep.objects import trial_name
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.finetunesweeps.trials import SWEEP, evaluation_of, trains, trials, wait_trial
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, RESULT, evaluation_report
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, RANK, TEMPLATE

pytestmark = pytest.mark.usefixtures("operator")


def states(api: Api) -> list[str]:
    return [trial["state"] for trial in trials(api)]


def test_a_grid_is_searched_two_trials_at_a_time_and_the_best_one_is_named(api: Api) -> None:
    search = {"algorithm": "Grid", "parameters": [RANK]}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search})
    first, second = wait_trial(api, 1), wait_trial(api, 2)
    assert [job["spec"]["adapter"]["lora"]["rank"] for job in by_rank(api)] == [8, 16]
    assert len(api.items("FineTuneJob")) == 2
    trains(api, first, 0.5)
    third = wait_trial(api, 3)
    trains(api, second, 0.3)
    trains(api, third, 0.4)
    done = api.wait_reason("FineTuneSweep", "router", "Succeeded")
    status = done["status"]
    assert condition(done, "Ready")["status"] == "True"
    assert status["best"] == {
        "number": 2,
        "fineTuneJobName": second["fineTuneJobName"],
        "score": 0.3,
        "digest": RESULT.digest,
        "values": {"adapter.lora.rank": 16},
    }
    assert (status["phase"], status["finished"], status["running"], status["remaining"]) == ("Succeeded", 3, 0, 0)
    assert states(api) == ["Succeeded"] * 3
    told = f"Of 3 trials, FineTuneJob '{second['fineTuneJobName']}' has the lowest validation loss, 0.3."
    assert condition(done, "Ready")["message"] == told


def test_trials_are_compared_by_the_score_of_a_grader_and_the_best_is_measured_on_other_examples(api: Api) -> None:
    """The second has the higher loss, and the higher score."""
    search = {"algorithm": "Grid", "parameters": [{**RANK, "numbers": [8, 16]}]}
    holdout = {"uri": "s3://data/holdout.jsonl"}
    objective = {"type": "Evaluation", "evaluation": {**OBJECTIVE["evaluation"], "holdout": holdout}}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search, "objective": objective})
    both = [wait_trial(api, 1), wait_trial(api, 2)]
    for trial, loss, score in zip(both, (0.3, 0.5), (0.35, 0.75), strict=True):
        trains(api, trial, loss)
        (pod,) = api.wait_children(evaluation_of(api, trial), "evaluate", "Pod")
        played.ends(api, pod, evaluation_report(tuned=score))
    wait_for(lambda: bool(on_holdout(api)), "the evaluation on the holdout examples")
    name = on_holdout(api)[0]["metadata"]["name"]
    (pod,) = api.wait_children(on_holdout(api)[0], "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.65))
    done = api.wait_reason("FineTuneSweep", "router", "Succeeded")
    best = done["status"]["best"]
    assert (best["number"], best["score"], best["low"], best["high"]) == (2, 0.75, 0.7, 0.8)
    assert "highest score from grader 'exact', 0.75 (0.7 to 0.8)." in condition(done, "Ready")["message"]
    assert done["status"]["holdout"] == {
        "number": 2,
        "evaluationName": name,
        "score": 0.65,
        "low": pytest.approx(0.6),
        "high": pytest.approx(0.7),
    }
    assert "which its choice did not depend on, it has 0.65 (0.6 to 0.7)." in condition(done, "Ready")["message"]
    evaluated = {one["metadata"]["name"] for one in api.items("Evaluation")} - {name}
    assert {trial["evaluationName"] for trial in trials(api)} == evaluated


def test_the_best_model_of_a_search_is_evaluated_and_served_once_it_is_over(api: Api) -> None:
    best = {"sweepRef": {"name": "router"}}
    api.create("Evaluation", "router", {**EVALUATION, "candidates": [{"name": "tuned", "model": best}]})
    api.create("ModelDeployment", "router", {**DEPLOYMENT, "model": best})
    api.wait_reason("Evaluation", "router", "ReferenceNotFound")
    search = {"algorithm": "Grid", "parameters": [{**RANK, "numbers": [8, 16]}]}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search})
    both = [wait_trial(api, 1), wait_trial(api, 2)]
    api.wait_reason("Evaluation", "router", "WaitingForModel")
    for trial, loss in zip(both, (0.3, 0.5), strict=True):
        trains(api, trial, loss)
    api.wait_reason("FineTuneSweep", "router", "Succeeded")
    evaluation = api.wait_reason("Evaluation", "router", "Evaluating")
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    run = json.loads(played.run_files(api, pod)["run.json"])
    result = api.get("FineTuneJob", both[0]["fineTuneJobName"])["status"]["result"]
    sources = [one["model"] for one in run["models"]]
    assert [one.get("adapterUri") for one in sources] == [None, result["uri"]]
    played.ends(api, pod, evaluation_report(tuned=0.75))
    deployment = api.wait_reason("ModelDeployment", "router", "RollingOut")
    assert deployment["status"]["applied"]["digest"] == result["digest"]


def test_a_learning_curve_trains_on_parts_of_the_examples_and_says_what_more_would_bring(api: Api) -> None:
    frozen = {"epochs": 1, "batchSize": 8, "maxLength": 512}
    template = {"spec": {**TEMPLATE, "className": "cpu", "hyperparameters": frozen}}
    curve = {"percents": [6.25, 12.5, 25, 50, 100], "seeds": 2}
    spec = {"mode": "LearningCurve", "template": template, "learningCurve": curve, "parallel": 10}
    api.create("FineTuneSweep", "router", spec)
    wait_trial(api, 10)
    for trial in trials(api):
        job = api.get("FineTuneJob", trial["fineTuneJobName"])
        share = job["spec"]["dataset"]["training"]["limit"]["percent"]
        loss = 0.5 + (share / 100) ** -0.5 + job["spec"]["hyperparameters"]["seed"] % 2 * 0.01
        trains(api, trial, loss, examples=int(1600 * share / 100))
    done = api.wait_reason("FineTuneSweep", "router", "Succeeded")
    found = done["status"]["learningCurve"]
    assert found["verdict"] == "WorthIt"
    assert [point["examples"] for point in found["points"]] == [100, 200, 400, 800, 1600]
    assert condition(done, "Ready")["message"] == found["message"]
    assert found["message"].startswith("Twice the data, 1,600 to 3,200 training examples, would lower the validation")
    assert "best" not in done["status"], "its trials differ in their data"


def test_a_cancelled_search_cancels_the_evaluation_of_a_trial_that_has_trained(api: Api) -> None:
    search = {"algorithm": "Grid", "parameters": [{**RANK, "numbers": [8]}]}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search, "objective": OBJECTIVE})
    trial = wait_trial(api, 1)
    trains(api, trial, 0.3)
    evaluation = evaluation_of(api, trial)
    api.patch("FineTuneSweep", "router", {"spec": {"cancel": True}})
    api.wait_reason("FineTuneSweep", "router", "Cancelled")
    api.wait_reason("Evaluation", evaluation["metadata"]["name"], "Cancelled")
    assert api.get("FineTuneJob", trial["fineTuneJobName"])["status"]["phase"] == "Succeeded"


def test_another_run_that_compares_losses_cancels_the_evaluations_of_the_one_before(api: Api) -> None:
    search = {"algorithm": "Grid", "parameters": [{**RANK, "numbers": [8]}]}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search, "objective": OBJECTIVE})
    trial = wait_trial(api, 1)
    trains(api, trial, 0.3)
    evaluation = evaluation_of(api, trial)
    api.patch(
        "FineTuneSweep", "router", {"spec": {"runId": "2", "objective": {"type": "EvalLoss", "evaluation": None}}}
    )
    api.wait_reason("Evaluation", evaluation["metadata"]["name"], "Cancelled")


def on_holdout(api: Api) -> list[Object]:
    return [one for one in api.items("Evaluation") if one["spec"]["dataset"]["uri"] == "s3://data/holdout.jsonl"]


def by_rank(api: Api) -> list[Object]:
    return sorted(api.items("FineTuneJob"), key=lambda job: int(job["spec"]["adapter"]["lora"]["rank"]))


def test_a_search_is_suspended_resumed_and_cancelled(api: Api) -> None:
    api.create("FineTuneSweep", "router", SWEEP)
    names = [wait_trial(api, number)["fineTuneJobName"] for number in (1, 2)]
    for name in names:
        api.wait_reason("FineTuneJob", name, "Validating")
    api.patch("FineTuneSweep", "router", {"spec": {"suspend": True}})
    for name in names:
        api.wait("FineTuneJob", name, lambda found: found["spec"]["suspend"] is True)
    api.wait_reason("FineTuneSweep", "router", "Suspended")
    api.patch("FineTuneSweep", "router", {"spec": {"suspend": False}})
    for name in names:
        api.wait("FineTuneJob", name, lambda found: found["spec"]["suspend"] is False)
    api.wait_reason("FineTuneSweep", "router", "Searching")
    api.patch("FineTuneSweep", "router", {"spec": {"cancel": True}})
    over = api.wait_reason("FineTuneSweep", "router", "Cancelled")
    assert condition(over, "Failed")["status"] == "True"
    assert states(api) == ["Cancelled", "Cancelled"]
    for name in names:
        api.wait_reason("FineTuneJob", name, "Cancelled")


def test_another_run_cancels_the_trials_of_the_one_before(api: Api) -> None:
    api.create("FineTuneSweep", "router", SWEEP)
    before = [wait_trial(api, number)["fineTuneJobName"] for number in (1, 2)]
    api.patch("FineTuneSweep", "router", {"spec": {"runId": "2", "search": {"seed": 5}}})
    for name in before:
        api.wait_reason("FineTuneJob", name, "Cancelled")
    wait_for(lambda: bool(trials(api)) and trials(api)[0]["fineTuneJobName"] not in before, "trials of the second run")
    assert api.get("FineTuneSweep", "router")["status"]["runId"] == "2"


def test_the_trials_of_a_deleted_sweep_are_deleted(api: Api) -> None:
    api.create("FineTuneSweep", "router", SWEEP)
    wait_trial(api, 2)
    api.delete("FineTuneSweep", "router")
    wait_for(lambda: not api.items("FineTuneJob"), "the garbage collection", 60)


def test_a_search_that_the_template_cannot_have_starts_nothing_and_says_why(api: Api) -> None:
    template = {"spec": {**TEMPLATE, "className": "cpu", "adapter": {"type": "Full"}}}
    api.create("FineTuneSweep", "router", {**SWEEP, "template": template})
    refused = api.wait_reason("FineTuneSweep", "router", "InvalidSpec")
    reason, message = stalled(refused)
    assert reason == "InvalidSpec"
    assert "spec.search.parameters[1] (adapter.lora.rank): 8 is not possible" in message
    assert not api.items("FineTuneJob")


def test_a_job_of_somebody_elses_with_the_name_of_a_trial_is_left_alone(api: Api) -> None:
    """The name is known as soon as the sweep is suspended before its first trial is created."""
    sweep = api.create("FineTuneSweep", "router", {**SWEEP, "suspend": True})
    api.wait_reason("FineTuneSweep", "router", "Suspended")
    name = trial_name(owner_of(sweep), 1, 1)
    api.create("FineTuneJob", name, {**TEMPLATE, "className": "cpu", "suspend": True})
    api.patch("FineTuneSweep", "router", {"spec": {"suspend": False}})
    taken = api.wait_reason("FineTuneSweep", "router", "NameConflict")
    assert name in stalled(taken)[1]
    api.delete("FineTuneJob", name)
