"""budget: acceleratorHours, which may be set and changed while a sweep goes on, and combinations that it leaves out."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import stalled
from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec

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
    world = SweepWorld(sweep_spec(budget={"acceleratorHours": 10}), accelerators=4)
    world.settle()
    world.ends(1)
    world.accelerators = NO_CLASS
    world.spec = world.spec.model_copy(update={"cancel": True})
    world.settle()
    assert world.states() == ["Succeeded", "Cancelled"]
    assert world.status.best is not None
    assert world.status.best.number == 1


GRID = {
    "algorithm": "Grid",
    "parameters": [
        {"path": "hyperparameters.learningRate", "numbers": [0.001, 0.01]},
        {"path": "adapter.lora.rank", "numbers": [4, 8]},
    ],
}


@pytest.mark.parametrize(
    ("trials", "told"),
    [(2, "Of 2 trials (of 4 combinations; budget.trials is 2), FineTuneJob"), (9, "Of 4 trials, FineTuneJob")],
)
def test_combinations_that_the_budget_left_out_are_told(trials: int, told: str) -> None:
    world = SweepWorld(sweep_spec(parallel=1, search=GRID, budget={"trials": trials}))
    world.settle()
    for number in range(1, min(trials, 4) + 1):
        world.ends(number)
        world.settle()
    assert next(one for one in world.status.conditions if one.type == "Ready").message.startswith(told)
