"""The learning curve's interval: simulated trainings, of which the truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from finetune_operator.finetunesweep.learning_curve.curve import (
    Measured,
    doubled,
    errors_by_size,
    fits,
    grows,
    variances,
)
from finetune_operator.finetunesweep.learning_curve.verdict import SURE

SIZES = (94, 188, 375, 750, 1500)
DRAWS = 60
EXAMPLES = 250
SEED_NOISE = 0.01
"""What the research behind this measured: one point."""
WORTHWHILE = 0.01


@dataclass(frozen=True)
class Truth:
    """The error is floor + slope * (n / 1500) ** -exponent."""

    floor: float
    slope: float
    exponent: float

    def error(self, examples: int) -> float:
        return self.floor + self.slope * (examples / SIZES[-1]) ** -self.exponent

    @property
    def gain(self) -> float:
        return self.error(SIZES[-1]) - self.error(2 * SIZES[-1])


TRUTHS = {
    "steep": Truth(0.25, 0.11, 0.5),
    "medium": Truth(0.25, 0.06, 0.4),
    "flat": Truth(0.30, 0.005, 0.5),
}


def trained(truth: Truth, chance: random.Random, seeds: int) -> list[Measured]:
    """Each seed differs, and each Evaluation has so many examples."""
    found = []
    for size in SIZES:
        for _ in range(seeds):
            error = min(max(truth.error(size) + chance.gauss(0, SEED_NOISE), 0.0), 1.0)
            wrong = sum(chance.random() < error for _ in range(EXAMPLES)) / EXAMPLES
            found.append(Measured(size, wrong, (wrong * (1 - wrong) / EXAMPLES) ** 0.5))
    return found


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_of_ninety_percent_holds_the_truth_about_so_often(name: str, seeds: int) -> None:
    truth, chance, held = TRUTHS[name], random.Random(f"{name} {seeds}"), 0
    for _ in range(DRAWS):
        measured = trained(truth, chance, seeds)
        variance = variances(measured)
        assert variance is not None
        found = doubled(measured, variance, WORTHWHILE)
        held += found.low <= truth.gain <= found.high
    assert held >= 0.88 * DRAWS, f"{held} of {DRAWS}"


@pytest.mark.parametrize("noise", [0.003, 0.02])
@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_of_a_loss_holds_the_truth_as_often_however_little_seeds_differ(name: str, noise: float) -> None:
    """Nothing but the seeds tells how certain a validation loss is. A lower bound is named only with a sure gain."""
    truth, chance, held = TRUTHS[name], random.Random(f"{name} {noise}"), 0
    for _ in range(DRAWS):
        measured = [Measured(size, truth.error(size) + chance.gauss(0, noise)) for size in SIZES for _ in range(2)]
        found = doubled(measured, variances(measured) or {}, WORTHWHILE)
        held += truth.gain <= found.high and (found.probability < SURE or found.low <= truth.gain)
    assert held >= 0.88 * DRAWS, f"{held} of {DRAWS}"


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("name", TRUTHS)
def test_scores_of_a_curve_fit_one(name: str, seeds: int) -> None:
    truth, chance = TRUTHS[name], random.Random(f"{name} {seeds}")
    fitting = sum(fits(trained(truth, chance, seeds)) for _ in range(DRAWS))
    assert fitting >= 0.9 * DRAWS, f"{fitting} of {DRAWS}"


@pytest.mark.parametrize("noise", [0.0005, 0.003, 0.02])
@pytest.mark.parametrize("name", TRUTHS)
def test_losses_of_a_curve_fit_one_however_little_seeds_differ(name: str, noise: float) -> None:
    truth, chance, fitting = TRUTHS[name], random.Random(f"{name} {noise}"), 0
    for _ in range(DRAWS):
        measured = [Measured(size, truth.error(size) + chance.gauss(0, noise)) for size in SIZES for _ in range(2)]
        fitting += fits(measured)
    assert fitting >= 0.88 * DRAWS, f"{fitting} of {DRAWS}"


@pytest.mark.parametrize("sizes", [SIZES[1:], SIZES])
def test_losses_that_fall_to_zero_fit_a_curve_without_a_floor(sizes: tuple[int, ...]) -> None:
    truth, chance, fitting = Truth(0.0, 0.1, 0.5), random.Random(len(sizes)), 0
    for _ in range(2 * DRAWS):
        measured = [Measured(size, truth.error(size) + chance.gauss(0, 0.003)) for size in sizes for _ in range(2)]
        fitting += fits(measured)
    assert fitting >= 0.92 * 2 * DRAWS, f"{fitting} of {2 * DRAWS}"


OTHER_SHAPES: dict[str, Callable[[int], float]] = {
    "a plateau after a fall": lambda n: 0.4 + 0.1 * max(0.0, math.log2(750 / n)),
    "an S that has ended": lambda n: 1.0 - 0.8 / (1 + math.exp(-2 * math.log2(8 * n / SIZES[-1]))),
    "an S in its middle": lambda n: 1.0 - 0.8 / (1 + math.exp(-1.5 * math.log2(n / SIZES[-1]))),
    "a fall after parts that are too small to learn from": lambda n: 2.0 - 0.3 * max(0.0, math.log2(n / 700)),
    "an exponential decay": lambda n: 0.3 + 0.5 * math.exp(-n / 400),
}


@pytest.mark.parametrize("name", OTHER_SHAPES)
def test_scores_of_another_shape_are_no_curve(name: str) -> None:
    """Of which twice the data would bring something else than the curve next to them says.

    By ten trainings, four of five such shapes or more are told from a curve; scores of a true one are refused in one of
    twenty.
    """
    chance = random.Random(name)
    found = 0
    for _ in range(DRAWS):
        measured = [Measured(n, OTHER_SHAPES[name](n) + chance.gauss(0, SEED_NOISE)) for n in SIZES for _ in range(2)]
        found += not fits(measured)
    assert found >= 0.8 * DRAWS, f"{found} of {DRAWS}"


@pytest.mark.parametrize(("name", "is_likely"), [("steep", True), ("flat", False)])
def test_a_steep_curve_is_told_from_a_flat_one(name: str, is_likely: bool) -> None:
    """By thirty trainings without noise of their measurement, which are as good as it gets."""
    truth, chance = TRUTHS[name], random.Random(17)
    measured = [Measured(size, truth.error(size) + chance.gauss(0, SEED_NOISE / 5)) for size in SIZES for _ in range(6)]
    variance = variances(measured)
    assert variance is not None
    probability = doubled(measured, variance, WORTHWHILE).probability
    assert probability > 0.9 if is_likely else probability < 0.1


def test_the_same_trainings_have_the_same_interval() -> None:
    measured = trained(TRUTHS["medium"], random.Random(5), 2)
    variance = variances(measured) or {}
    assert doubled(measured, variance, 0.01) == doubled(list(reversed(measured)), variance, 0.01)


def test_seeds_tell_how_uncertain_a_loss_is() -> None:
    measured = [Measured(size, 1.0 + seed * 0.1) for size in (10, 20, 40, 80) for seed in (0, 1)]
    variance = variances(measured) or {}
    assert variance == pytest.approx(dict.fromkeys((10, 20, 40, 80), 0.01))
    assert variances([Measured(size, 1.0) for size in (10, 20, 40, 80)]) is None, "one seed of each tells nothing"


def test_an_error_is_no_more_certain_than_its_measurement() -> None:
    measured = [Measured(size, 0.5, standard_error=0.1) for size in (10, 20, 40, 80) for _ in range(2)]
    assert variances(measured) == pytest.approx(dict.fromkeys((10, 20, 40, 80), 0.01))


@pytest.mark.parametrize(("last", "is_worse"), [(0.30, False), (0.42, False), (0.60, True)])
def test_an_error_that_grows_with_the_data_is_no_curve(last: float, is_worse: bool) -> None:
    measured = [Measured(size, error) for size, error in ((10, 0.5), (20, 0.45), (40, 0.4), (80, last))]
    assert grows(measured, dict.fromkeys(errors_by_size(measured), 0.001)) == is_worse
