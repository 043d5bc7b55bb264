"""D1: the operator is killed again and again within a search, whose trials and Evaluations are played."""

from __future__ import annotations

import random

from tests.integration.operator.api import Object
from tests.integration.operator.finetunesweeps.trials import (
    SWEEP,
    Searched,
    has_been_evaluated,
    has_ended,
    pause,
    reports,
    trials,
)
from tests.unit.operator.finetunesweep.sweeps import SweepWorld, sweep_spec
from tests.unit.operator.finetunesweep.test_holdout import BY_GRADER, HOLDOUT, PLAYED, play

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


def test_a_search_by_a_grader_with_pruning_and_a_holdout_whose_operator_is_killed_at_each_step(
    searched: Searched,
) -> None:
    api, operator, chance = searched.api, searched.operator, random.Random(5)

    def dies() -> None:
        pause(chance.uniform(0, 0.8))
        operator.kill()

    def evaluation(of: Object) -> Object:
        """The one that evaluates this trial, or on the holdout examples."""
        found = list[Object]()

        def is_there() -> bool:
            found[:] = [one for one in api.items("Evaluation") if of.items() <= evaluated(one).items()]
            return bool(found)

        searched.wait(is_there, f"an evaluation of {of}")
        return found[0]

    api.create("FineTuneSweep", "router", {**SWEEP, **BY_GRADER})
    for number, (loss, score) in enumerate(PLAYED, start=1):
        trial = searched.trial(number)
        reports(api, trial, 10, loss)
        dies()
        if score is None:
            searched.wait(lambda at=number: trials(api)[at - 1]["state"] == "Pruned", f"trial {number} to be pruned")
            continue
        searched.wait(lambda at=number: bool(trials(api)[at - 1].get("rungs")), f"the loss of trial {number}")
        has_ended(api, trial)
        dies()
        has_been_evaluated(api, evaluation({"job": trial["fineTuneJobName"]}), score)
        dies()
    has_been_evaluated(api, evaluation({"uri": HOLDOUT["uri"]}), 0.55)
    dies()
    status = searched.sweep("Succeeded")["status"]
    calm = SweepWorld(sweep_spec(**BY_GRADER))
    play(calm, calm.settle)
    assert [(one["state"], one["values"]) for one in status["trials"]] == [
        (one.state, one.values) for one in calm.status.trials
    ]
    assert [one.get("score") for one in status["trials"]] == [score for _, score in PLAYED]
    assert (status["best"]["number"], status["holdout"]["score"]) == (3, 0.55)
    names = [one["fineTuneJobName"] for one in status["trials"]]
    is_cancelled = {job["metadata"]["name"]: job["spec"]["cancel"] for job in api.items("FineTuneJob")}
    assert is_cancelled == {name: score is None for name, (_, score) in zip(names, PLAYED, strict=True)}
    kept = [name for name, (_, score) in zip(names, PLAYED, strict=True) if score is not None]
    found = [evaluated(one) for one in api.items("Evaluation")]
    assert sorted(one["job"] for one in found if one["uri"] != HOLDOUT["uri"]) == sorted(kept), "each once"
    assert [one["job"] for one in found if one["uri"] == HOLDOUT["uri"]] == [names[2]]


def evaluated(evaluation: Object) -> Object:
    """Which job's model, and on which examples."""
    (candidate,) = evaluation["spec"]["candidates"]
    return {"job": candidate["model"]["fineTuneJobRef"]["name"], "uri": evaluation["spec"]["dataset"]["uri"]}
