"""Trials that are compared by the score of a grader: each has an Evaluation, once it has trained."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from finetune_api.finetunesweep import TrialStatus
from finetune_operator.finetunesweep.refusal import search_refusal
from finetune_operator.finetunesweep.search.best import best_trial
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, SweepWorld, sweep_spec


def started(**changes: Any) -> SweepWorld:
    world = SweepWorld(sweep_spec(objective=OBJECTIVE, **changes))
    world.settle()
    return world


def evaluations(world: SweepWorld) -> list[dict[str, Any]]:
    return [body for body in world.created if body["kind"] == "Evaluation"]


def test_a_trial_that_has_trained_is_evaluated_as_the_template_says() -> None:
    world = started()
    assert not evaluations(world)
    world.has_trained(1)
    world.settle()
    (body,) = evaluations(world)
    name = world.trial(1).fine_tune_job_name
    assert body["spec"]["candidates"] == [{"name": "tuned", "model": {"fineTuneJobRef": {"name": name}}}]
    assert body["spec"]["dataset"]["uri"] == "s3://data/test.jsonl"
    assert [one["name"] for one in body["spec"]["graders"]] == ["exact"]
    assert [one["uid"] for one in body["metadata"]["ownerReferences"] if one["controller"]] == ["5a3c"]
    assert world.states() == ["Running", "Running"], "it has no score yet"


def test_its_evaluation_has_the_class_of_its_training() -> None:
    world = SweepWorld(sweep_spec({"className": "h100"}, objective=OBJECTIVE))
    world.settle()
    world.has_trained(1)
    world.settle()
    assert evaluations(world)[0]["spec"]["className"] == "h100"


def test_the_highest_score_is_the_best() -> None:
    world = started(budget={"trials": 2})
    for number, score in ((1, 0.4), (2, 0.7)):
        world.has_trained(number)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()
    best = world.status.best
    assert best is not None
    assert (best.number, best.score, best.tied_with) == (2, 0.7, None)
    assert (best.low, best.high) == pytest.approx((0.65, 0.75))
    assert (world.status.phase, world.trial(2).evaluation_name is not None) == ("Succeeded", True)
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert "has the highest score from grader 'exact', 0.7 (0.65 to 0.75)." in ready.message


def test_of_trials_whose_intervals_overlap_a_much_cheaper_one_is_the_best() -> None:
    world = started(budget={"trials": 3}, parallel=3)
    for number, score, seconds in ((1, 0.70, 900), (2, 0.72, 3600), (3, 0.4, 60)):
        world.ends(number, "Evaluating", eval_loss=None, has_trained=True, completed=None, seconds=seconds)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()
    best = world.status.best
    assert best is not None
    assert (best.number, best.tied_with) == (1, [2])
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert "has the score 0.7 (0.65 to 0.75) from grader 'exact'. It took less time to train" in ready.message
    assert f"{world.trial(2).fine_tune_job_name!r} with 0.72, and their intervals overlap." in ready.message


def test_a_score_that_is_the_best_is_said_to_overlap_with_others() -> None:
    world = started(budget={"trials": 2})
    for number, score in ((1, 0.70), (2, 0.72)):
        world.has_trained(number)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert "0.72 (0.67 to 0.77). The interval of trial 1 overlaps with it." in ready.message


def test_a_trial_that_was_disrupted_is_not_compared_by_the_time_that_was_lost() -> None:
    world = started(budget={"trials": 2})
    for number, score, seconds, attempt_seconds in ((1, 0.85, 3600, 900), (2, 0.75, 1000, 1000)):
        fields = {"completed": None, "seconds": seconds, "attempt_seconds": attempt_seconds}
        world.ends(number, "Evaluating", eval_loss=None, has_trained=True, **fields)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()
    assert world.status.best is not None
    assert (world.status.best.number, world.status.best.tied_with) == (1, [2])
    assert [(trial.seconds, trial.attempt_seconds) for trial in world.status.trials] == [(3600, 900), (1000, None)]


def scored(
    number: int, score: float, low: float | None, high: float | None, seconds: int = 600, last: int | None = None
) -> TrialStatus:
    """`last`: the seconds of the attempt that succeeded, if there were others."""
    took = {"seconds": seconds, "attempt_seconds": last}
    return TrialStatus(
        number=number, fine_tune_job_name="t", state="Succeeded", score=score, low=low, high=high, **took
    )


@pytest.mark.parametrize(
    ("trials", "sign", "number", "tied"),
    [
        ([], 1, None, []),
        ([scored(1, 0.5, None, None), scored(2, 0.5, None, None, 1)], 1, 1, []),  # losses have no intervals
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.61, 0.8)], -1, 2, []),
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.6, 0.8)], -1, 2, [1]),  # both cost the same: the higher score
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.6, 0.8, 601)], -1, 2, [1]),  # a second is no reason
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.6, 0.8, 749)], -1, 2, [1]),
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.6, 0.8, 750)], -1, 1, [2]),  # a fifth less
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.6, 0.8, 3000, 700)], -1, 2, [1]),  # disrupted, or it had won
        ([scored(1, 0.5, 0.4, 0.6, 900, 100), scored(2, 0.7, 0.6, 0.8, 900)], -1, 2, [1]),  # it resumed: no cheaper
        ([scored(1, 0.5, 0.4, 0.6, 0), scored(2, 0.7, 0.6, 0.8, 0)], -1, 2, [1]),  # times that are not known
        ([scored(1, 0.5, 0.4, 0.6), scored(2, 0.7, 0.61, 0.8, 1)], 1, 1, []),
        # The third is like the second, and the first is not: what counts is the one with the best score.
        ([scored(1, 0.9, 0.8, 1.0), scored(2, 0.75, 0.65, 0.85), scored(3, 0.7, 0.6, 0.79, 1)], -1, 1, [2]),
    ],
)
def test_the_best_trial(trials: list[TrialStatus], sign: int, number: int | None, tied: list[int]) -> None:
    best = best_trial(trials, sign)
    assert (None if best is None else best.number, [] if best is None else best.tied_with or []) == (number, tied)


def test_later_trials_are_near_the_best_scores() -> None:
    """TPE minimizes: a score that is to be maximized must not be taken for a loss."""

    def last_rates(goal: str) -> list[float]:
        objective = {**OBJECTIVE, "evaluation": {**OBJECTIVE["evaluation"], "goal": goal}}
        search = {"parameters": [{"path": "hyperparameters.learningRate", "uniform": {"minimum": 0.01, "maximum": 1}}]}
        world = SweepWorld(sweep_spec(search=search, objective=objective, parallel=1, budget={"trials": 25}))
        world.settle()
        for number in range(1, 26):
            world.has_trained(number)
            world.settle()
            world.is_evaluated(number, world.trial(number).values["hyperparameters.learningRate"])
            world.settle()
        return [trial.values["hyperparameters.learningRate"] for trial in world.status.trials[10:]]

    assert statistics.median(last_rates("Maximize")) > 0.7
    assert statistics.median(last_rates("Minimize")) < 0.3


def test_a_trial_whose_evaluation_failed_has_failed() -> None:
    world = started()
    world.has_trained(1)
    world.settle()
    world.ends(1, "Failed", eval_loss=None, reason="GraderFailed")
    world.settle()
    assert (world.trial(1).state, world.trial(1).reason) == ("Failed", "GraderFailed")


def test_a_trial_without_a_score_of_the_grader_has_failed() -> None:
    world = started()
    world.has_trained(1)
    world.settle()
    world.ends(1, "Succeeded", eval_loss=0.3)
    world.settle()
    assert (world.trial(1).state, world.trial(1).reason) == ("Failed", "NoScore")


def test_evaluations_are_suspended_and_cancelled_as_the_sweep_is() -> None:
    world = started()
    world.has_trained(1)
    world.settle()
    job = world.trial(1).fine_tune_job_name
    world.spec = world.spec.model_copy(update={"suspend": True})
    changed = {body["metadata"]["name"]: body["kind"] for body in world.reconcile().merge}
    name = world.jobs[job].evaluation_name
    assert changed == {name: "Evaluation", world.trial(2).fine_tune_job_name: "FineTuneJob"}
    world.settle()
    assert world.status.phase == "Suspended"
    world.spec = world.spec.model_copy(update={"suspend": False, "cancel": True})
    world.settle()
    assert world.jobs[job].is_cancelled
    assert world.states() == ["Cancelled", "Cancelled"]


def test_while_the_sweep_is_suspended_no_evaluation_begins() -> None:
    world = started()
    world.spec = world.spec.model_copy(update={"suspend": True})
    world.has_trained(1)
    world.settle()
    assert not evaluations(world)
    assert world.status.phase == "Suspended", "there is nothing to wait for"
    world.spec = world.spec.model_copy(update={"suspend": False})
    world.settle()
    assert len(evaluations(world)) == 1


def test_a_trial_that_has_trained_is_pruned_no_more() -> None:
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 10}})
    world.ends(3, "Evaluating", eval_step=10, eval_loss=0.9, has_trained=True, completed=None)
    world.settle()
    for number in (1, 2):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    assert world.states() == ["Running", "Pruned", "Running"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stringCheck": {"reference": "{{item.answer"}}, "item.answer"),
        ({"stringCheck": {"operation": "Nearly"}}, "graders.0.stringCheck.operation: "),
        ({"stringCheck": {}, "weight": 3}, "graders.0.weight: Extra inputs are not permitted"),
    ],
)
def test_graders_that_cannot_work_are_named_before_a_trial_starts(settings: dict[str, Any], told: str) -> None:
    objective = {**OBJECTIVE, "evaluation": {**OBJECTIVE["evaluation"]}}
    grader = {"name": "exact", "type": "StringCheck", **settings}
    objective["evaluation"] |= {"template": {"spec": {"dataset": {"uri": "s3://data/a.jsonl"}, "graders": [grader]}}}
    refused = search_refusal(sweep_spec(objective=objective))
    assert refused is not None
    assert refused.reason == "InvalidSpec"
    assert refused.message.startswith("spec.objective.evaluation.template: ")
    assert told in refused.message


def test_the_seed_may_be_searched_where_no_losses_are_compared() -> None:
    template = {"dataset": {"training": {"uri": "s3://data/a.jsonl"}, "validation": {"splitPercent": 10}}}
    seeds = {"parameters": [{"path": "hyperparameters.seed", "numbers": [1, 2]}]}
    assert search_refusal(sweep_spec(template, seeds)) is not None
    assert search_refusal(sweep_spec(template, seeds, objective=OBJECTIVE)) is None
