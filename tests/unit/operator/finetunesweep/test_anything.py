"""Whatever is done to a sweep and to its trials, in whatever order, it ends, and nothing that it made runs on."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.finetunesweep import TrialStatus
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, SweepWorld, sweep_spec
from tests.unit.operator.finetunesweep.test_holdout import HOLDOUT

OVER = ("Succeeded", "Failed", "Cancelled")
PRUNED: dict[str, Any] = {
    "search": {"algorithm": "Random"},
    "parallel": 3,
    "budget": {"trials": 7},
    "prune": {"asha": {"minimumSteps": 10, "reductionFactor": 2}},
}
BY_GRADER = {"type": "Evaluation", "evaluation": {**OBJECTIVE["evaluation"], "holdout": HOLDOUT}}
STEPS = 60


@pytest.mark.parametrize("changes", [PRUNED, {**PRUNED, "objective": BY_GRADER}], ids=["by loss", "by a grader"])
@pytest.mark.parametrize("seed", range(12))
def test_a_sweep_ends_whatever_happens_to_it(changes: dict[str, Any], seed: int) -> None:
    chance, world = random.Random(seed), SweepWorld(sweep_spec(**changes), accelerators=4)
    for _ in range(STEPS):
        world.now += timedelta(seconds=chance.choice([1, 3, 20]))
        happen(world, chance)
    world.quota = 1000
    change(world, suspend=False)
    for _ in range(STEPS):
        world.now += timedelta(seconds=20)
        world.settle()
        for trial in going(world):
            advance(world, trial, chance)
        if world.holdout is not None and world.holdout.phase == "Evaluating":
            world.holdout_ends()
    assert world.status.phase in OVER
    assert {trial.state for trial in world.status.trials} <= {*OVER, "Pruned"}
    assert [trial.number for trial in world.status.trials] == list(range(1, len(world.status.trials) + 1))
    made = [*world.jobs.values(), *([world.holdout] if world.holdout is not None else [])]
    assert all(job.phase in OVER or job.is_cancelled or not job.may_be_changed for job in made)
    assert all(trial.reason != "Stopping" for trial in world.status.trials)


def happen(world: SweepWorld, chance: random.Random) -> None:
    """One thing: mostly what trials do, or a reconciliation that is cut short somewhere."""
    found = going(world)
    trial = chance.choice(found) if found else None
    what = chance.choice(["reconcile"] * 4 + ["advance"] * 4 + ["report"] * 2 + ["person", "spec"])
    if what == "reconcile":
        world.reconcile(killed_after=chance.choice([None, 0, 1, 2, 3, 4]))
    elif what == "spec":
        cancel = chance.random() < 0.05
        asked: list[dict[str, Any]] = [{"suspend": True}, {"suspend": False}, {"parallel": 1}, {"parallel": 5}]
        budget = world.spec.budget.model_copy(update=chance.choice([{"trials": 2}, {"trials": 9}, {"failures": 9}]))
        change(world, **({"cancel": True} if cancel else chance.choice([*asked, {"budget": budget}, {"run_id": "2"}])))
        world.quota = chance.choice([2, 1000])
    elif trial is not None and what == "advance":
        advance(world, trial, chance)
    elif trial is not None and what == "report":
        world.reports(trial.number, chance.choice([10, 20, 40]), chance.random(), every=10)
    elif trial is not None and what == "person":
        end = chance.choice(["delete", "Cancelled", "Failed", "take over"])
        if end == "delete":
            del world.jobs[trial.fine_tune_job_name]
        elif end == "take over":
            world.ends(trial.number, "Failed", eval_loss=None, reason="SpecChanged", is_ours=False)
        else:
            world.ends(trial.number, end, eval_loss=None, reason="OutOfMemory")


def going(world: SweepWorld) -> list[TrialStatus]:
    """The trials whose jobs are there and have not ended."""
    there = [one for one in world.status.trials if one.state == "Running" and one.fine_tune_job_name in world.jobs]
    return [trial for trial in there if world.jobs[trial.fine_tune_job_name].phase not in OVER]


def advance(world: SweepWorld, trial: TrialStatus, chance: random.Random) -> None:
    """It trains to its end, or is evaluated; once in a while its Evaluation is deleted."""
    job = world.jobs[trial.fine_tune_job_name]
    if job.phase == "Training" and world.spec.measured is None:
        world.ends(trial.number, eval_loss=chance.random())
    elif job.phase == "Training":
        world.has_trained(trial.number)
    elif job.phase == "Evaluating" and job.evaluation_name is not None and chance.random() < 0.1:
        world.jobs[trial.fine_tune_job_name] = replace(job, evaluation_name=None)
    elif job.phase == "Evaluating" and job.evaluation_name is not None:
        world.is_evaluated(trial.number, chance.random())


def change(world: SweepWorld, **fields: Any) -> None:
    world.spec = world.spec.model_copy(update=fields)
