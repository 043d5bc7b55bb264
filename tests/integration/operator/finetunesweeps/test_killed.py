"""D1: the operator is killed twenty times within a search of twenty trials, which are played."""

from __future__ import annotations

import random

from tests.integration.operator.finetunesweeps.trials import SWEEP, Searched, has_ended, pause, trials
from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec

TRIALS = 20


def test_a_search_of_twenty_trials_whose_operator_is_killed_twenty_times(searched: Searched) -> None:
    api, operator = searched.api, searched.operator
    api.create("FineTuneSweep", "router", {**SWEEP, "budget": {"trials": TRIALS}})
    chance = random.Random(17)
    for number in range(1, TRIALS + 1):
        has_ended(api, searched.trial(number))
        pause(chance.uniform(0, 0.8))
        operator.kill()
    sweep = searched.sweep("Succeeded")
    assert operator.starts > TRIALS
    jobs = api.items("FineTuneJob")
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted(one["fineTuneJobName"] for one in trials(api))
    assert len(jobs) == TRIALS
    assert [trial["values"] for trial in trials(api)] == undisturbed()
    assert sweep["status"]["best"]["score"] == min(trial["score"] for trial in trials(api))
    for trial in trials(api):
        (job,) = [one for one in jobs if one["metadata"]["name"] == trial["fineTuneJobName"]]
        assert job["spec"]["hyperparameters"]["learningRate"] == trial["values"]["hyperparameters.learningRate"]
        assert job["spec"]["adapter"]["lora"]["rank"] == trial["values"]["adapter.lora.rank"]


def undisturbed() -> list[dict[str, object]]:
    """What is tried if nobody kills the operator, and trials end in the same order."""
    world = SweepWorld(sweep_spec(budget={"trials": TRIALS}))
    world.settle()
    for number in range(1, TRIALS + 1):
        world.ends(number)
        world.settle()
    return [trial.values for trial in world.status.trials]
