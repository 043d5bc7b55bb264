"""objective.evaluation.holdout: the best trial is measured once more, on examples that its choice did not depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.unit.operator.finetunesweep.sweeps import NOW, OBJECTIVE, SweepWorld, sweep_spec

HOLDOUT = {"uri": "s3://data/holdout.jsonl"}
PLAYED = ((0.5, 0.3), (0.9, None), (0.4, 0.6), (0.8, None), (0.45, 0.5))
"""Of each trial: the loss at ten steps, and its score; None: by that loss it is pruned."""
BY_GRADER: dict[str, Any] = {
    "objective": {"type": "Evaluation", "evaluation": {**OBJECTIVE["evaluation"], "holdout": HOLDOUT}},
    "parallel": 1,
    "budget": {"trials": len(PLAYED)},
    "prune": {"median": {"minimumSteps": 10, "minimumTrials": 1}},
}


def searched(scores: dict[int, float], **changes: Any) -> SweepWorld:
    """A search of as many trials, whose scores are there."""
    objective = {"type": "Evaluation", "evaluation": {**OBJECTIVE["evaluation"], "holdout": HOLDOUT}}
    world = SweepWorld(sweep_spec(objective=objective, budget={"trials": len(scores)}, **changes))
    world.settle()
    evaluate(world, scores)
    return world


def evaluate(world: SweepWorld, scores: dict[int, float]) -> None:
    for number, score in scores.items():
        world.has_trained(number)
        world.settle()
        world.is_evaluated(number, score)
        world.settle()


def made(world: SweepWorld) -> list[dict[str, Any]]:
    """The Evaluations on the holdout examples."""
    return [one for one in world.created if one["metadata"]["labels"]["finetune.dev/role"] == "holdout"]


def message(world: SweepWorld) -> str:
    return next(one for one in world.status.conditions if one.type == "Ready").message


def test_the_best_trial_is_evaluated_on_other_examples_before_the_sweep_is_over() -> None:
    world = searched({1: 0.4, 2: 0.7})
    (body,) = made(world)
    best = world.trial(2).fine_tune_job_name
    assert body["spec"]["dataset"]["uri"] == HOLDOUT["uri"]
    assert [one["name"] for one in body["spec"]["graders"]] == ["exact"]
    assert body["spec"]["candidates"] == [{"name": "tuned", "model": {"fineTuneJobRef": {"name": best}}}]
    assert (world.status.phase, world.reason()) == ("Running", ("False", "Searching"))
    assert "measures the best on spec.objective.evaluation.holdout" in message(world)
    world.holdout_ends(score=0.6)
    world.settle()
    found = world.status.holdout
    assert found is not None
    assert (found.number, found.score, found.low, found.high) == (2, 0.6, pytest.approx(0.55), pytest.approx(0.65))
    assert (world.status.phase, world.status.best and world.status.best.score) == ("Succeeded", 0.7)
    told = "On the holdout examples, which its choice did not depend on, it has 0.6 (0.55 to 0.65)."
    assert told in message(world)


def test_its_examples_may_be_a_split_of_a_dataset() -> None:
    """As those that the trials are compared on; all else of these Evaluations stays the same."""
    evaluation, splits = (
        OBJECTIVE["evaluation"],
        [{"name": "tickets", "split": name} for name in ("validation", "test")],
    )
    compared, held_out = ({"datasetRef": split} for split in splits)
    measured = {**evaluation["template"]["spec"], "dataset": {**compared, "maxExamples": 50}}
    objective = {**evaluation, "template": {"spec": measured}, "holdout": held_out}
    world = SweepWorld(sweep_spec(objective={"type": "Evaluation", "evaluation": objective}, budget={"trials": 1}))
    world.settle()
    evaluate(world, {1: 0.4})
    datasets = [one["spec"]["dataset"] for one in world.created if one["kind"] == "Evaluation"]
    assert [(one["datasetRef"], one["maxExamples"]) for one in datasets] == [(split, 50) for split in splits]
    assert not any("uri" in one for one in datasets)


def test_what_becomes_of_that_evaluation_does_not_undo_the_choice() -> None:
    world = searched({1: 0.4})
    world.holdout_ends("Failed", None, reason="OutOfMemory")
    world.settle()
    assert (world.status.phase, world.status.best and world.status.best.number) == ("Succeeded", 1)
    assert "On the holdout examples it has no score (OutOfMemory): see Evaluation" in message(world)


@pytest.mark.parametrize("completed", [None, NOW], ids=["it goes on", "it has ended"])
def test_one_that_can_not_measure_what_was_chosen_any_more_is_cancelled(completed: datetime | None) -> None:
    """The FineTuneJob of the best trial was deleted, or trained again (views/evaluation.py)."""
    world = searched({1: 0.4})
    assert world.holdout is not None
    world.holdout = replace(world.holdout, phase="Failed", reason="ReferenceNotFound", completed=completed)
    merged = world.reconcile().merge
    assert [body["spec"] for body in merged] == ([{"cancel": True}] if completed is None else [])
    world.settle()
    assert (world.status.phase, world.status.best and world.status.best.number) == ("Succeeded", 1)
    assert "On the holdout examples it has no score (ReferenceNotFound): see Evaluation" in message(world)


def test_one_that_is_deleted_is_made_again() -> None:
    world = searched({1: 0.4})
    world.holdout = None
    world.settle()
    first, second = made(world)
    assert first == second


def test_it_is_suspended_and_resumed_as_the_sweep_is() -> None:
    world = searched({1: 0.4})
    world.spec = world.spec.model_copy(update={"suspend": True})
    world.settle()
    assert world.holdout is not None
    assert (world.holdout.phase, world.reason()[1]) == ("Suspended", "Suspended")
    world.spec = world.spec.model_copy(update={"suspend": False})
    world.settle()
    assert (world.holdout.phase, world.reason()[1]) == ("Evaluating", "Searching")


def test_it_is_cancelled_as_the_sweep_is() -> None:
    world = searched({1: 0.4})
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    assert world.holdout is not None
    assert (world.holdout.phase, world.status.phase) == ("Cancelled", "Cancelled")


@pytest.mark.parametrize("change", [{"cancel": True}, {"run_id": "2"}])
@pytest.mark.parametrize(
    ("found", "is_cancelled"),
    [
        ({"is_ours": False}, False),
        ({"phase": "Succeeded", "completed": NOW}, False),
        ({"phase": "Failed", "reason": "ReferenceNotFound"}, True),
    ],
    ids=["taken over", "over", "of another model, and not over"],
)
def test_an_end_of_the_sweep_cancels_it_if_it_runs_and_is_the_sweeps(
    change: dict[str, Any], found: dict[str, Any], is_cancelled: bool
) -> None:
    world = searched({1: 0.4})
    assert world.holdout is not None
    world.holdout = replace(world.holdout, **found)
    world.spec = world.spec.model_copy(update=change)
    assert [body["spec"] for body in world.reconcile().merge] == ([{"cancel": True}] if is_cancelled else [])


def test_another_run_cancels_it_and_measures_its_own_best() -> None:
    world = searched({1: 0.4})
    world.spec = world.spec.model_copy(update={"run_id": "2"})
    world.settle()
    assert world.holdout is not None
    assert world.holdout.phase == "Cancelled"
    assert world.status.holdout is None


def test_a_larger_budget_goes_on_with_trials_and_measures_the_best_of_all() -> None:
    world = searched({1: 0.4})
    budget = world.spec.budget.model_copy(update={"trials": 2})
    world.spec = world.spec.model_copy(update={"budget": budget})
    world.settle()
    evaluate(world, {2: 0.9})
    assert [one["spec"]["candidates"][0]["model"]["fineTuneJobRef"]["name"] for one in made(world)] == [
        world.trial(1).fine_tune_job_name,
        world.trial(2).fine_tune_job_name,
    ]
    world.holdout_ends(score=0.8)
    world.settle()
    found = world.status.holdout
    assert found is not None
    assert (world.status.phase, found.number, found.score) == ("Succeeded", 2, 0.8)


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_an_operator_that_is_killed_makes_it_once(killed_after: int) -> None:
    world = searched({1: 0.4})
    world.holdout, world.status = None, world.status.model_copy(update={"holdout": None})
    world.created.clear()
    world.reconcile(killed_after)
    world.settle()
    assert len(made(world)) == 1


def play(world: SweepWorld, then: Callable[[], None]) -> None:
    """Every trial as it is played, the Evaluations of those that go on, and that on the holdout examples."""
    then()
    for number, (loss, score) in enumerate(PLAYED, start=1):
        world.reports(number, 10, loss)
        then()
        if score is None:
            continue
        world.has_trained(number)
        then()
        world.is_evaluated(number, score)
        then()
    world.holdout_ends(score=0.55)
    then()


@pytest.fixture(scope="module")
def undisturbed() -> SweepWorld:
    world = SweepWorld(sweep_spec(**BY_GRADER))
    play(world, world.settle)
    return world


@pytest.mark.parametrize("killed_after", range(5))
def test_an_operator_that_is_killed_at_each_step_evaluates_prunes_and_chooses_the_same(
    undisturbed: SweepWorld, killed_after: int
) -> None:
    """Evaluations, pruning and the holdout examples: nothing is lost, nothing is made twice."""
    killed = SweepWorld(sweep_spec(**BY_GRADER))

    def die_and_settle() -> None:
        killed.reconcile(killed_after)
        killed.settle()

    play(killed, die_and_settle)
    assert undisturbed.states() == ["Succeeded", "Pruned", "Succeeded", "Pruned", "Succeeded"]
    assert (undisturbed.status.phase, undisturbed.status.best and undisturbed.status.best.number) == ("Succeeded", 3)
    assert killed.status.trials == undisturbed.status.trials
    assert (killed.status.best, killed.status.holdout) == (undisturbed.status.best, undisturbed.status.holdout)
    assert killed.created == undisturbed.created
