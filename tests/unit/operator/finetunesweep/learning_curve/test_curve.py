"""Whether scores follow a learning curve, and how much they vary: simulated trainings, of which the truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from finetune_operator.finetunesweep.learning_curve.curve import (
    Measured,
    error_increases,
    errors_by_size,
    fits_curve,
    variances,
)
from tests.unit.operator.finetunesweep.learning_curve.simulated import DRAWS, SEED_NOISE, SIZES, TRUTHS, Truth, trained


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("name", TRUTHS)
def test_scores_of_a_curve_fit_one(name: str, seeds: int) -> None:
    truth, chance = TRUTHS[name], random.Random(f"{name} {seeds}")
    fitting = sum(fits_curve(trained(truth, chance, seeds)) for _ in range(DRAWS))
    assert fitting >= 0.9 * DRAWS, f"{fitting} of {DRAWS}"


@pytest.mark.parametrize("noise", [0.0005, 0.003, 0.02])
@pytest.mark.parametrize("name", TRUTHS)
def test_losses_of_a_curve_fit_one_however_little_seeds_differ(name: str, noise: float) -> None:
    truth, chance, fitting = TRUTHS[name], random.Random(f"{name} {noise}"), 0
    for _ in range(DRAWS):
        measured = [Measured(size, truth.error(size) + chance.gauss(0, noise)) for size in SIZES for _ in range(2)]
        fitting += fits_curve(measured)
    assert fitting >= 0.88 * DRAWS, f"{fitting} of {DRAWS}"


@pytest.mark.parametrize("sizes", [SIZES[1:], SIZES])
def test_losses_that_fall_to_zero_fit_a_curve_without_a_floor(sizes: tuple[int, ...]) -> None:
    truth, chance, fitting = Truth(0.0, 0.1, 0.5), random.Random(len(sizes)), 0
    for _ in range(2 * DRAWS):
        measured = [Measured(size, truth.error(size) + chance.gauss(0, 0.003)) for size in sizes for _ in range(2)]
        fitting += fits_curve(measured)
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
        found += not fits_curve(measured)
    assert found >= 0.8 * DRAWS, f"{found} of {DRAWS}"


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
    assert error_increases(measured, dict.fromkeys(errors_by_size(measured), 0.001)) == is_worse
