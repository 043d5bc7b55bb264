"""budget: acceleratorHours, which may be set and changed while a sweep goes on, failures, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import stalled
from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec

HOUR = {"activeDeadlineSeconds": 3600}
"""A template whose trials take an hour at most."""
NO_CLASS = stalled(Reason.CLASS_NOT_FOUND, "There is no class.")


def test_a_limit_that_is_set_later_counts_what_was_used_before_it() -> None:
    world = SweepWorld(sweep_spec(parallel=1), accelerators=4)
    world.settle()
    world.ends(1)
    world.settle()
    assert world.trial(1).accelerator_seconds == 4 * 3600
    world.ends(2)
    world.spec = sweep_spec(parallel=1, budget={"acceleratorHours": 10})
    world.settle()
    assert world.states() == ["Succeeded", "Succeeded"], "a third would be at twelve hours"


def test_without_a_limit_a_class_that_cannot_be_read_leaves_the_use_unknown() -> None:
    world = SweepWorld(sweep_spec(parallel=1), accelerators=None)
    world.settle()
    world.ends(1)
    world.settle()
    assert (world.trial(1).seconds, world.trial(1).accelerator_seconds) == (3600, None)
    assert world.states() == ["Succeeded", "Running"]


def test_a_trial_that_had_succeeded_stays_so_though_the_sweep_is_cancelled_while_hours_cannot_be_counted() -> None:
    world = SweepWorld(sweep_spec(HOUR, budget={"acceleratorHours": 10}), accelerators=4)
    world.settle()
    world.ends(1)
    world.accelerators = NO_CLASS
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    assert world.states() == ["Succeeded", "Cancelled"]
    assert world.status.best is not None
    assert world.status.best.number == 1


def limited(hours: float, template: dict[str, Any] | None = None, **rest: Any) -> SweepWorld:
    """A sweep on four accelerators, four trials at a time."""
    spec = sweep_spec(template, parallel=4, budget={"acceleratorHours": hours}, **rest)
    world = SweepWorld(spec, accelerators=4)
    world.settle()
    return world


def told(world: SweepWorld, kind: str = "Ready") -> str:
    return next(one for one in world.status.conditions if one.type == kind).message


def test_before_it_is_known_how_long_a_trial_takes_only_one_runs() -> None:
    """Else as many as run side by side would begin whatever the limit is."""
    world = limited(0.001)
    assert world.states() == ["Running"]
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded"]
    assert "Another trial would exceed budget.acceleratorHours." in told(world)
    world = limited(20)
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded"] + ["Running"] * 4, "four hours each"


def test_without_accelerators_nothing_limits_how_many_begin() -> None:
    world = SweepWorld(sweep_spec(parallel=4, budget={"acceleratorHours": 1}), accelerators=0)
    world.settle()
    assert world.states() == ["Running"] * 4


def test_with_a_deadline_as_many_begin_as_the_limit_allows_in_any_case() -> None:
    assert limited(8, HOUR).states() == ["Running"] * 2
    assert limited(16, HOUR).states() == ["Running"] * 4


def test_a_limit_smaller_than_one_trial_is_named_before_any_begins_and_may_be_raised() -> None:
    world = limited(3.9, HOUR)
    assert world.status.trials == []
    assert world.reason("Stalled") == ("True", "InvalidSpec")
    assert "spec.budget.acceleratorHours is 3.9, but one trial may take 4:" in told(world, "Stalled")
    world.spec = sweep_spec(HOUR, parallel=4, budget={"acceleratorHours": 4})
    world.settle()
    assert world.states() == ["Running"]


def test_what_running_trials_have_used_counts_before_they_end() -> None:
    """The second has run for three hours, where the first took one: another would not fit any more."""
    world = SweepWorld(sweep_spec(parallel=2, budget={"acceleratorHours": 17}), accelerators=4)
    world.settle()
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded", "Running", "Running"]
    slow = world.trial(2).fine_tune_job_name
    world.jobs[slow] = replace(world.jobs[slow], seconds=3 * 3600)
    world.ends(3, seconds=60)
    world.settle()
    assert world.states() == ["Succeeded", "Running", "Succeeded"]
    assert told(world).endswith("another trial would exceed budget.acceleratorHours.")
    assert world.status.remaining == 0


def test_pruned_trials_say_less_than_a_trial_needs() -> None:
    """Two pruned ones took a minute each; what counts is the hour of the one that went on."""
    world = SweepWorld(
        sweep_spec(HOUR, parallel=3, budget={"acceleratorHours": 12}, prune={"asha": {"minimumSteps": 10}}),
        accelerators=4,
    )
    world.settle()
    for number in (1, 2, 3):
        name = world.trial(number).fine_tune_job_name
        world.jobs[name] = replace(world.jobs[name], seconds=60)
        world.reports(number, eval_step=10, eval_loss=number / 10)
    world.settle()
    assert world.states()[:3] == ["Running", "Pruned", "Pruned"]
    world.ends(1)
    world.settle()
    assert world.states() == ["Succeeded", "Pruned", "Pruned", "Running"], (
        "another one would be at twelve hours and more"
    )


def test_a_trial_has_as_many_accelerators_as_when_it_began() -> None:
    world = SweepWorld(sweep_spec(parallel=1), accelerators=4)
    world.settle()
    world.accelerators = 8
    world.ends(1)
    world.settle()
    assert (world.trial(1).accelerators, world.trial(1).accelerator_seconds) == (4, 4 * 3600)
    assert world.trial(2).accelerators == 8


def test_a_budget_that_is_raised_after_the_end_is_answered_by_what_to_change() -> None:
    """The search does not go on: what refers to its best model must not change under it."""
    world = SweepWorld(sweep_spec(parallel=1, budget={"trials": 2}))
    world.settle()
    for number in (1, 2):
        world.ends(number)
        world.settle()
    ended = told(world)
    raised = f"{ended} spec.budget allows more trials now, but this search is over: change spec.runId to search again."
    for trials, hours, message in (
        (3, None, raised),
        (2, None, ended),
        (2, 0.001, ended),
        (1, None, ended),
    ):
        world.spec = sweep_spec(parallel=1, budget={"trials": trials, "acceleratorHours": hours})
        world.settle()
        assert (world.status.phase, world.reason(), told(world)) == ("Succeeded", ("True", "Succeeded"), message)
    assert len(world.status.trials) == 2


def test_so_are_failures_that_are_raised_after_the_sweep_has_failed() -> None:
    world = SweepWorld(sweep_spec(parallel=1, budget={"failures": 1}))
    world.settle()
    world.ends(1, "Failed", reason="TrainingDiverged")
    world.settle()
    ended = told(world)
    world.spec = sweep_spec(parallel=1, budget={"failures": 9})
    world.settle()
    assert (world.status.phase, world.reason("Failed"), world.states()) == (
        "Failed",
        ("True", "TrialsFailed"),
        ["Failed"],
    )
    assert told(world).startswith(f"{ended} spec.budget allows more trials now")
    assert told(world, "Failed") == told(world, "Stalled") == told(world)


def test_a_cancelled_sweep_says_how_to_search_again_whatever_its_budget() -> None:
    world = SweepWorld(sweep_spec(parallel=1))
    world.settle()
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    ended = told(world)
    world.spec = sweep_spec(parallel=1, cancel=True, budget={"trials": 99})
    world.settle()
    assert (world.status.phase, told(world)) == ("Cancelled", ended)
    assert "Change spec.runId and set spec.cancel to false to run again." in ended


GRID = {
    "algorithm": "Grid",
    "parameters": [
        {"path": "hyperparameters.learningRate", "numbers": [0.001, 0.01]},
        {"path": "adapter.lora.rank", "numbers": [4, 8]},
    ],
}


@pytest.mark.parametrize(
    ("trials", "message"),
    [(2, "Of 2 trials (of 4 combinations; budget.trials is 2), FineTuneJob"), (9, "Of 4 trials, FineTuneJob")],
)
def test_combinations_that_the_budget_left_out_are_told(trials: int, message: str) -> None:
    world = SweepWorld(sweep_spec(parallel=1, search=GRID, budget={"trials": trials}))
    world.settle()
    for number in range(1, min(trials, 4) + 1):
        world.ends(number)
        world.settle()
    assert told(world).startswith(message)


def test_when_the_last_failure_is_that_of_the_last_trial_the_best_of_the_others_stands() -> None:
    world = SweepWorld(sweep_spec(parallel=1, budget={"trials": 4, "failures": 2}))
    world.settle()
    world.ends(1, "Failed", reason="TrainingDiverged")
    world.settle()
    for number in (2, 3):
        world.ends(number)
        world.settle()
    world.ends(4, "Failed", reason="TrainingDiverged")
    world.settle()
    assert (world.status.phase, world.reason()) == ("Succeeded", ("True", "Succeeded"))
    assert told(world).startswith("Of 4 trials (2 failed), FineTuneJob ")
