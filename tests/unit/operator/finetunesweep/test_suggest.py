"""The values of each trial follow from the search and the trials before it, and from nothing else."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from statistics import pstdev
from typing import Any

import pytest

from finetune_api.finetunesweep import TrialStatus
from finetune_operator.finetunesweep.search.suggest import suggest
from tests.unit.operator.finetunesweep.sweeps import NOW, RANK, RATE, SweepWorld, loss, sweep_spec

EPOCHS = {"path": "hyperparameters.epochs", "numbers": [1, 2]}
BATCH_SIZE = {"path": "hyperparameters.batchSize", "uniform": {"minimum": 4, "maximum": 64}}


def trials_of(spec: Any, count: int) -> list[TrialStatus]:
    """A search whose trials end one after the other."""
    trials: list[TrialStatus] = []
    for number in range(1, count + 1):
        values = suggest(spec.search, trials, number)
        name = f"trial-{number}"
        trials.append(
            TrialStatus(number=number, fine_tune_job_name=name, values=values, state="Succeeded", score=loss(values))
        )
    return trials


def as_stored(trials: list[TrialStatus]) -> list[TrialStatus]:
    return [TrialStatus.from_wire(json.loads(json.dumps(trial.to_wire()))) for trial in trials]


@pytest.mark.parametrize("algorithm", ["TPE", "Random"])
def test_asked_again_with_what_the_status_has_it_suggests_the_same(algorithm: str) -> None:
    spec = sweep_spec(search={"algorithm": algorithm})
    trials = trials_of(spec, 25)
    for number in range(1, 26):
        assert suggest(spec.search, as_stored(trials[: number - 1]), number) == trials[number - 1].values


@pytest.mark.parametrize("algorithm", ["TPE", "Random"])
def test_values_are_within_their_ranges_and_of_their_fields_types(algorithm: str) -> None:
    spec = sweep_spec(search={"algorithm": algorithm, "parameters": [RATE, RANK, BATCH_SIZE]})
    for trial in trials_of(spec, 30):
        assert 1e-5 <= trial.values["hyperparameters.learningRate"] <= 1e-2
        assert trial.values["adapter.lora.rank"] in (8, 16, 32)
        assert type(trial.values["hyperparameters.batchSize"]) is int
        assert 4 <= trial.values["hyperparameters.batchSize"] <= 64


def test_another_seed_tries_other_values() -> None:
    one, other = (trials_of(sweep_spec(search={"seed": seed}), 3) for seed in (1, 2))
    assert [trial.values for trial in one] != [trial.values for trial in other]


def test_tpe_learns_from_what_has_been_tried() -> None:
    """After its ten random trials, those of TPE are better than the random ones with the same seeds."""
    searched, drawn = (trials_of(sweep_spec(search={"algorithm": one}), 40) for one in ("TPE", "Random"))
    means = [sum(trial.score or 0 for trial in trials[10:]) / 30 for trials in (searched, drawn)]
    assert means[0] < means[1]


def test_a_running_trial_is_taken_into_account() -> None:
    """TPE counts it as a bad one, so that trials that run side by side differ."""
    spec = sweep_spec()
    trials = trials_of(spec, 15)
    running = TrialStatus(number=16, fine_tune_job_name="t", values=suggest(spec.search, trials, 16), state="Running")
    assert suggest(spec.search, [*trials, running], 17) != suggest(spec.search, trials, 17)


def test_trials_that_run_side_by_side_spread() -> None:
    """Each knows of those that run already; if none did, all would try the same neighbourhood."""
    spec = sweep_spec(search={"parameters": [RATE]})
    done = [
        TrialStatus(
            number=n, fine_tune_job_name="t", values={RATE["path"]: 10**exponent}, state="Succeeded", score=score
        )
        for n, (exponent, score) in enumerate(((-2 - step / 10, abs(1 - step / 10)) for step in range(20)), 1)
    ]
    running: list[TrialStatus] = []
    for number in range(21, 31):
        values = suggest(spec.search, [*done, *running], number)
        running.append(TrialStatus(number=number, fine_tune_job_name="t", values=values, state="Running"))
    together = [math.log10(trial.values[RATE["path"]]) for trial in running]
    alone = [math.log10(float(suggest(spec.search, done, n)[RATE["path"]])) for n in range(21, 31)]
    assert pstdev(together) > pstdev(alone)


def test_a_grid_has_every_combination_once_in_order() -> None:
    search = {"algorithm": "Grid", "parameters": [RANK, EPOCHS]}
    trials = trials_of_grid(search, 6)
    assert trials == [
        {"adapter.lora.rank": rank, "hyperparameters.epochs": epochs}
        for rank, epochs in itertools.product([8, 16, 32], [1, 2])
    ]


def trials_of_grid(search: dict[str, Any], count: int) -> list[dict[str, Any]]:
    spec = sweep_spec(search=search)
    return [dict(suggest(spec.search, [], number)) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    "values", [{}, {"hyperparameters.learningRate": 5, "adapter.lora.rank": 8}, {"adapter.lora.rank": 8}]
)
def test_a_trial_that_this_search_could_not_have_made_is_left_out(values: dict[str, Any]) -> None:
    """A status may be edited."""
    spec = sweep_spec()
    strange = TrialStatus(number=1, fine_tune_job_name="t", values=values, state="Succeeded", score=0.1)
    assert suggest(spec.search, [strange], 2) == suggest(spec.search, [], 2)


def test_an_operator_without_sweeps_does_not_load_optuna() -> None:
    code = "import sys, finetune_operator.runtime.manager; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_values_that_tpe_chooses_are_chosen_for_a_few_trials_at_a_time() -> None:
    world = SweepWorld(sweep_spec(parallel=20))
    decided = world.reconcile()
    assert (len(world.status.trials), decided.requeue_at) == (10, NOW), "the first ten are random"
    decided = world.reconcile()
    assert (len(world.status.trials), decided.requeue_at) == (14, NOW)
    world.settle()
    assert len(world.created) == 20


@pytest.mark.parametrize("algorithm", ["Random", "Grid"])
def test_trials_whose_values_cost_nothing_begin_with_one_write(algorithm: str) -> None:
    grid = {"parameters": [{"path": "adapter.lora.rank", "numbers": list(range(1, 51))}]}
    world = SweepWorld(
        sweep_spec(
            parallel=50,
            budget={"trials": 50},
            search={"algorithm": algorithm, **(grid if algorithm == "Grid" else {})},
        )
    )
    decided = world.reconcile()
    assert (len(world.status.trials), decided.requeue_at) == (50, None)
