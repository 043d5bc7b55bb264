"""Mode LearningCurve: from its trials to a sentence about what more data would bring."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetunesweep import CurveStatus, FineTuneSweepSpec, TrialStatus
from finetune_operator.finetunesweep.learning_curve.verdict import curve_values, learning_curve
from finetune_operator.finetunesweep.refusal import search_refusal
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, TEMPLATE, SweepWorld

FROZEN = {"epochs": 3, "batchSize": 8, "maxLength": 512}
EXAMPLES = 1600


def curve_spec(hyperparameters: dict[str, Any] | None = None, **rest: Any) -> FineTuneSweepSpec:
    template = {**TEMPLATE, "hyperparameters": {**FROZEN, **(hyperparameters or {})}}
    return FineTuneSweepSpec.from_wire({"mode": "LearningCurve", "template": {"spec": template}, **rest})


def finished(spec: FineTuneSweepSpec, score: Any, margin: float | None = None) -> SweepWorld:
    """Each trial has the score that this function has for its number of examples and its seed."""
    world = SweepWorld(spec)
    world.settle()
    while world.status.completion_time is None:
        number = next(trial.number for trial in world.status.trials if trial.state == "Running")
        values = world.trial(number).values
        examples = int(EXAMPLES * values["dataset.training.limit.percent"] / 100)
        found = score(examples, values["hyperparameters.seed"])
        if margin is None:
            world.ends(number, eval_loss=found, examples=examples)
        else:
            world.has_trained(number)
            world.settle()
            world.is_evaluated(number, found, margin, examples=examples)
        world.settle()
    return world


def of(world: SweepWorld) -> CurveStatus:
    assert world.status.learning_curve is not None
    return world.status.learning_curve


def test_its_trials_differ_in_size_and_seed_alone() -> None:
    spec = curve_spec({"seed": 5, "learningRate": 0.001}, learningCurve={"percents": [50, 6.25, 100, 25], "seeds": 2})
    world = finished(spec, lambda examples, seed: 1.0)
    jobs = [body["spec"] for body in world.created]
    limits = [job["dataset"]["training"]["limit"]["percent"] for job in jobs]
    assert limits == [100, 50, 25, 6.25] * 2, "the largest first: it takes longest"
    assert [job["hyperparameters"].pop("seed") for job in jobs] == [5] * 4 + [6] * 4
    assert all(job["hyperparameters"] == {**FROZEN, "learningRate": 0.001} for job in jobs)


def test_a_steep_loss_is_worth_more_data() -> None:
    found = of(finished(curve_spec(), lambda n, seed: 0.5 + (n / EXAMPLES) ** -0.5 + seed % 2 * 0.01))
    assert found.verdict == "WorthIt"
    assert found.gain == pytest.approx(1 - 2**-0.5, abs=0.1)
    assert found.message.startswith(
        "Twice the data, 1,600 to 3,200 training examples, would lower the validation loss by"
    )
    assert [point.examples for point in found.points] == [100, 200, 400, 800, 1600]
    assert all(point.trials == 2 for point in found.points)


def test_a_truly_flat_loss_gains_at_most_something_and_is_not_worth_more_data() -> None:
    found = of(finished(curve_spec(), lambda n, seed: 1.0 + seed % 2 * 0.001))
    assert found.verdict == "NotWorthIt"
    assert "would lower the validation loss by at most" in found.message
    assert "(90 %" not in found.message, "a gain of which nobody knows whether it is one"


def test_scores_of_few_examples_cannot_tell() -> None:
    spec = curve_spec(objective=OBJECTIVE)
    found = of(finished(spec, lambda n, seed: 0.7 - 0.06 * (n / EXAMPLES) ** -0.4 + seed % 2 * 0.02, margin=0.06))
    assert found.verdict == "CantTell"
    assert "inconclusive. Use more seeds, or more examples to evaluate, to decide." in found.message
    assert "the score from grader 'exact'" in found.message
    assert [point.score for point in found.points] == sorted(point.score for point in found.points), "not the errors"


def test_more_data_that_made_it_worse_is_no_curve() -> None:
    found = of(finished(curve_spec(), lambda n, seed: 1.0 + n / EXAMPLES + seed % 2 * 0.01))
    assert (found.verdict, found.gain) == ("CantTell", None)
    assert "made the model worse" in found.message


def test_three_sizes_are_too_few() -> None:
    """The smallest two are the same number of examples, of a small dataset."""
    spec = curve_spec()
    world = finished(spec, lambda n, seed: 1.0 / n)
    few = [trial.model_copy(update={"examples": max(300, trial.examples or 0)}) for trial in world.status.trials]
    found = learning_curve(spec, few[:4])
    assert (found.verdict, found.points) == ("CantTell", [])


@pytest.mark.parametrize("margin", [None, 0.01, 1e300])
@pytest.mark.parametrize("loss", [1.7e308, -1e200, 1e10])
def test_a_loss_that_is_no_measurement_counts_for_no_size(loss: float, margin: float | None) -> None:
    """Of a training that has diverged, or in a report that somebody forged: its square may be no number."""
    spec = curve_spec(**({} if margin is None else {"objective": OBJECTIVE}))
    world = finished(spec, lambda examples, seed: loss if examples < 400 else 0.5, margin)
    assert (world.status.phase, of(world).verdict) == ("Succeeded", "CantTell")
    sizes = 3 if margin != 1e300 else 0
    assert of(world).message.startswith(f"Only {sizes} of at least 4 sizes have scores that can be compared")


def test_losses_as_small_as_numbers_get_leave_nothing_to_gain() -> None:
    world = finished(curve_spec(), lambda examples, seed: 1e-300 * (1 + 100 / examples + seed % 2 / 100))
    assert of(world).verdict == "NotWorthIt"


def test_the_same_examples_with_the_same_seed_count_once() -> None:
    """6.25 % and 12.5 % of a few examples can be equally many."""
    spec = curve_spec()
    world = finished(spec, lambda n, seed: 1.0 / n + seed % 2 * 0.01)
    same = [trial.model_copy(update={"examples": max(200, trial.examples or 0)}) for trial in world.status.trials]
    same.append(same[-1].model_copy(update={"state": "Failed", "score": None}))
    assert {point.examples: point.trials for point in learning_curve(spec, same).points} == {
        200: 2,
        400: 2,
        800: 2,
        1600: 2,
    }


def test_sizes_that_lie_close_together_say_nothing_of_twice_the_data() -> None:
    """As the smallest parts fail, or are the same examples of a small dataset: noise would look like a slope."""
    spec = curve_spec(learningCurve={"percents": [70, 80, 90, 100]})
    found = of(finished(spec, lambda n, seed: 1.0 - n / EXAMPLES / 10 + seed % 2 * 0.001))
    assert (found.verdict, found.gain_high, len(found.points)) == ("CantTell", None, 4)
    assert found.message.startswith("The sizes lie too close together, 1,120 to 1,600 training examples:")


def test_four_sizes_of_which_the_largest_is_four_times_the_smallest_are_enough() -> None:
    spec = curve_spec(learningCurve={"percents": [8, 16, 24, 32]})
    found = of(finished(spec, lambda n, seed: 0.5 + (n / EXAMPLES) ** -0.5 + seed % 2 * 0.01))
    assert (found.verdict, [point.examples for point in found.points]) == ("WorthIt", [128, 256, 384, 512])


def test_too_few_seeds_to_know_how_they_differ_are_reported_as_that() -> None:
    spec = curve_spec()
    world = finished(spec, lambda n, seed: 1.0 / n)
    found = learning_curve(spec, [trial for trial in world.status.trials if trial.number in (1, 2, 3, 4, 5, 6)])
    assert found.verdict == "CantTell"
    assert found.message.startswith("6 scores of 5 sizes are too few to know how much seeds differ")


@pytest.mark.parametrize("margin", [0.03, 0.0])
def test_scores_that_are_all_perfect_leave_nothing_to_gain(margin: float) -> None:
    found = of(finished(curve_spec(objective=OBJECTIVE), lambda n, seed: 1.0, margin=margin))
    assert found.gain_high is not None
    assert found.gain_high < 0.1
    assert all(point.score == 1.0 for point in found.points)


def test_losses_that_are_all_zero_leave_nothing_to_gain() -> None:
    found = of(finished(curve_spec(), lambda n, seed: 0.0))
    assert (found.verdict, found.gain_high) == ("NotWorthIt", pytest.approx(0.0, abs=1e-4))


@given(
    st.lists(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=3), min_size=4, max_size=6),
    st.sampled_from([None, 0.0, 0.05]),
)
def test_every_set_of_scores_has_a_verdict(scores: list[list[float]], margin: float | None) -> None:
    spec = curve_spec() if margin is None else curve_spec(objective=OBJECTIVE)
    trials = [
        TrialStatus(
            number=10 * size + number,
            fine_tune_job_name="job",
            state="Succeeded",
            examples=100 * 2**size,
            score=score,
            values={"hyperparameters.seed": number},
            low=None if margin is None else score - margin,
            high=None if margin is None else score + margin,
        )
        for size, of_size in enumerate(scores)
        for number, score in enumerate(of_size)
    ]
    found = learning_curve(spec, trials)
    assert found.message
    assert found.gain_high is None or math.isfinite(found.gain_high)


def test_the_sentence_is_the_sweeps_message() -> None:
    world = finished(curve_spec(), lambda n, seed: 1.0 + seed % 2 * 0.001)
    ready = next(one for one in world.status.conditions if one.type == "Ready")
    assert ready.message == of(world).message
    before = world.status
    world.settle()
    assert world.status == before


def test_it_chooses_no_trial_though_a_small_part_of_the_data_is_the_cheapest() -> None:
    """Intervals of few examples overlap: the smallest part would be preferred, and deployed by a sweepRef."""
    spec = curve_spec(objective=OBJECTIVE)
    world = finished(spec, lambda n, seed: 0.7 - 0.06 * (n / EXAMPLES) ** -0.4 + seed % 2 * 0.02, margin=0.06)
    assert (world.status.phase, world.status.best) == ("Succeeded", None)
    assert of(world).message
    by_loss = finished(curve_spec(), lambda n, seed: 1.0 / n)
    assert (by_loss.status.phase, by_loss.status.best) == ("Succeeded", None)


def test_a_curve_without_a_score_has_failed() -> None:
    world = SweepWorld(curve_spec(parallel=10, budget={"failures": 11}))
    world.settle()
    for number in range(1, 11):
        world.ends(number, "Failed", eval_loss=None, reason="OutOfMemory")
    world.settle()
    assert (world.status.phase, world.reason("Failed")) == ("Failed", ("True", "TrialsFailed"))
    assert world.status.learning_curve is None


def test_trials_that_hours_did_not_allow_are_reported_with_the_limit() -> None:
    world = SweepWorld(curve_spec(parallel=1, budget={"acceleratorHours": 12}), accelerators=4)
    world.settle()
    for number in (1, 2, 3):
        world.ends(number, eval_loss=1.0 / number, examples=100 * number)
        world.settle()
    assert (world.status.phase, of(world).verdict) == ("Succeeded", "CantTell")
    assert of(world).message == (
        "Only 3 of at least 4 sizes have scores that can be compared: cannot estimate the effect of more data. "
        "7 more trials were not tried: another trial would exceed budget.acceleratorHours."
    )


def test_a_budget_of_fewer_trials_than_the_curve_has_is_named_before_one_starts() -> None:
    spec = curve_spec(learningCurve={"seeds": 5})
    assert len(curve_values(spec)) == 25
    refused = search_refusal(spec)
    assert refused is not None
    assert "spec.budget.trials is 20, but the learning curve needs 25." in refused.message
