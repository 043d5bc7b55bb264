"""Trials that are ended early: others were better at the same step, or the sweep is cancelled."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec


def started(**changes: Any) -> SweepWorld:
    world = SweepWorld(sweep_spec(**changes))
    world.settle()
    return world


def test_of_nine_trials_at_the_first_rung_three_go_on() -> None:
    world = started(parallel=9, budget={"trials": 9}, prune={"asha": {"minimumSteps": 10}})
    for number in range(1, 10):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    assert world.states() == ["Running"] * 3 + ["Pruned"] * 6
    assert [world.jobs[trial.fine_tune_job_name].is_cancelled for trial in world.status.trials] == [False] * 3 + [
        True
    ] * 6
    assert world.rungs(9) == {10: 0.9}
    world.ends(1, eval_loss=0.05)
    world.settle()
    assert world.rungs(1) == {10: 0.1, 90: None}, "what it was at 30 and 90 steps nobody has reported"


def test_a_loss_of_an_earlier_step_is_not_compared_at_a_later_rung() -> None:
    """At step 60 a trial still reports the evaluation of step 40, until that of step 60 is done."""
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 20}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=20, eval_loss=0.5 + number / 10, every=20)
    world.settle()
    assert [world.rungs(number) for number in (1, 2, 3)] == [{20: 0.6}, {20: 0.7}, {20: 0.8}]
    world.reports(1, eval_step=40, eval_loss=0.45, every=20)
    world.settle()
    assert world.rungs(1) == {20: 0.6}, "rung 60 has no loss yet"
    world.reports(1, eval_step=60, eval_loss=0.4, every=20)
    world.settle()
    assert world.rungs(1) == {20: 0.6, 60: 0.4}


def test_a_rung_that_no_evaluation_hit_has_the_first_loss_after_it() -> None:
    world = started(prune={"asha": {"minimumSteps": 20}})
    world.reports(1, eval_step=19, eval_loss=0.9, every=19)
    world.settle()
    assert world.rungs(1) == {}
    world.reports(1, eval_step=38, eval_loss=0.6, every=19)
    world.settle()
    world.reports(1, eval_step=76, eval_loss=0.5, every=19)
    world.settle()
    assert world.rungs(1) == {20: 0.6, 60: 0.5}


def test_rungs_closer_together_than_evaluations_have_the_same_loss() -> None:
    world = started(prune={"asha": {"minimumSteps": 20}})
    world.reports(1, eval_step=100, eval_loss=0.5, every=100)
    world.settle()
    assert world.rungs(1) == {20: 0.5, 60: 0.5}


@pytest.mark.parametrize(
    "prune", [{"asha": {"minimumSteps": 10}}, {"median": {"minimumSteps": 10, "minimumTrials": 2}}]
)
def test_an_operator_that_was_away_while_the_first_trials_trained_prunes_no_later_one_for_it(prune: Any) -> None:
    """Whatever it missed is no loss of a much later step, which no new trial could have at its first rung."""
    world = started(parallel=3, budget={"trials": 9}, prune=prune)
    for number in (1, 2, 3):
        world.reports(number, eval_step=80, eval_loss=0.1 * number, every=10)
    world.settle()
    for number in (1, 2, 3):
        world.ends(number, eval_loss=0.05, eval_step=90)
        world.settle()
    for number in (4, 5, 6):
        world.reports(number, eval_step=10, eval_loss=0.9, every=10)
    world.settle()
    assert world.states()[3] == "Running", "the best of the new ones goes on"
    assert all(world.rungs(number).get(10) is None for number in (1, 2, 3))


def test_a_loss_of_an_unknown_step_prunes_nothing() -> None:
    """As an older trainer reports it, or an image of the user's own."""
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=None, eval_loss=number / 10)
    world.settle()
    assert world.states() == ["Running"] * 3
    assert [world.rungs(number) for number in (1, 2, 3)] == [{}, {}, {}]


def test_a_trial_above_the_median_of_those_that_succeeded_is_pruned() -> None:
    world = started(prune={"median": {"minimumSteps": 10, "minimumTrials": 1}})
    world.reports(1, eval_step=10, eval_loss=0.5)
    world.settle()
    world.ends(1, eval_loss=0.4)
    world.settle()
    world.reports(2, eval_step=10, eval_loss=0.6)
    world.reports(3, eval_step=10, eval_loss=0.5)
    world.settle()
    assert world.states()[:3] == ["Succeeded", "Pruned", "Running"]


def test_a_pruned_trial_makes_room_for_the_next() -> None:
    world = started(parallel=3, budget={"trials": 4}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    assert world.states() == ["Running", "Pruned", "Pruned", "Running"]


KILLS = range(4)
"""After so many writes of a reconciliation, of which there are three at most: two cancelled jobs and the status."""


@pytest.mark.parametrize(("first", "second"), [*itertools.product(KILLS, KILLS)])
def test_whatever_is_known_later_a_job_is_cancelled_exactly_if_its_trial_is_pruned(first: int, second: int) -> None:
    """The operator is killed twice. Then others are worse still, so that trial 2 would not lose any more."""
    world = started(parallel=6, budget={"trials": 6}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.reconcile(killed_after=first)
    world.reconcile(killed_after=second)
    for number in (4, 5, 6):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    pruned = [trial for trial in world.status.trials if trial.state == "Pruned"]
    is_cancelled = {name for name, job in world.jobs.items() if job.is_cancelled}
    assert is_cancelled == {trial.fine_tune_job_name for trial in pruned}
    assert world.states()[0] == "Running"
    assert world.states()[3:] == ["Pruned"] * 3
    assert "Cancelled" not in world.states()


@pytest.mark.parametrize("killed_after", range(6))
def test_a_search_whose_last_trials_are_pruned_does_not_end_before_they_are_cancelled(killed_after: int) -> None:
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.ends(1, eval_loss=0.05, eval_step=10)
    world.reconcile(killed_after=killed_after)
    world.reconcile(killed_after=killed_after)
    world.settle()
    assert (world.status.phase, world.states()) == ("Succeeded", ["Succeeded", "Pruned", "Pruned"])
    assert [world.jobs[trial.fine_tune_job_name].is_cancelled for trial in world.status.trials] == [False, True, True]
    assert [trial.reason for trial in world.status.trials] == [None] * 3, "nothing is left to do"


def test_a_pruned_trial_is_stopping_until_its_job_is_cancelled() -> None:
    world = started(parallel=3, budget={"trials": 4}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    recorded = world.reconcile()
    assert recorded.merge == ()
    assert [trial.reason for trial in world.status.trials] == [None, "Stopping", "Stopping", None]
    assert recorded.requeue_at == world.now
    cancelled = world.reconcile()
    assert [body["metadata"]["name"] for body in cancelled.merge] == [
        world.trial(number).fine_tune_job_name for number in (2, 3)
    ]
    assert world.reconcile().merge == ()
    world.ends(1)
    world.settle()
    assert [trial.reason for trial in world.status.trials[:3]] == [None] * 3


@pytest.mark.parametrize("change", [{"run_id": "2"}, {"cancel": True}, {"suspend": True}], ids=str)
def test_a_pruned_trial_is_cancelled_whatever_is_asked_for_before_it_was(change: dict[str, Any]) -> None:
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    names = [trial.fine_tune_job_name for trial in world.status.trials[1:]]
    world.reconcile()
    assert not any(world.jobs[name].is_cancelled for name in names)
    world.spec = world.spec.model_copy(update=change)
    world.settle()
    assert all(world.jobs[name].is_cancelled for name in names)


def test_a_trial_that_a_person_cancels_is_cancelled_though_others_are_better() -> None:
    world = started(parallel=3, budget={"trials": 3}, prune={"asha": {"minimumSteps": 10}})
    for number in (1, 2, 3):
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.ends(3, "Cancelled", eval_loss=0.3, eval_step=10)
    world.settle()
    assert world.states() == ["Running", "Pruned", "Cancelled"]


def test_a_search_is_cancelled_once_its_trials_are() -> None:
    world = started()
    world.spec = world.spec.model_copy(update={"cancel": True})
    names = [trial.fine_tune_job_name for trial in world.status.trials]
    asked = world.reconcile()
    assert {body["metadata"]["name"] for body in asked.merge} == set(names)
    world.jobs = {name: replace(job, phase="Training", completed=None) for name, job in world.jobs.items()}
    stuck, other = names[0], names[1]
    world.jobs[stuck] = replace(world.jobs[stuck], is_stalled=True, message="The API server refuses to delete Job x.")
    waits = world.reconcile()
    assert waits.merge == ()
    assert (world.status.phase, world.reason()) == ("Running", ("False", "Stopping"))
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert ready.message == (
        f"spec.cancel is true. Waiting for {len(names)} trials, among them trial {stuck!r}, to save and stop. It is "
        "Stalled: The API server refuses to delete Job x."
    )
    world.jobs[stuck] = replace(world.jobs[stuck], is_stalled=False)
    for name in names:
        assert world.status.completion_time is None
        world.jobs[name] = replace(world.jobs[name], phase="Succeeded" if name == other else "Cancelled", eval_loss=0.5)
        world.reconcile()
    world.settle()
    assert world.status.phase == "Cancelled"
    assert world.trial(2).state == "Succeeded", "its result was there already"
    assert world.states().count("Cancelled") == len(names) - 1
