"""What twice the data is said to bring, against trainings on twice the data: simulated ones, and a cluster's own."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Sequence
from statistics import mean

import pytest

from finetune_operator.finetunesweep.learning_curve.curve import (
    LEAST_SPAN,
    Measured,
    error_increases,
    fits_curve,
    variances,
)
from finetune_operator.finetunesweep.learning_curve.prediction import Gain, gain_of_doubling
from finetune_operator.finetunesweep.learning_curve.verdict import SURE
from tests.unit.operator.finetunesweep.learning_curve.simulated import (
    DRAWS,
    SEED_NOISE,
    SIZES,
    TRUTHS,
    Losses,
    Truth,
    graded,
    trained,
)

WORTHWHILE = 0.01
HELD = 0.88
"""Of intervals of 90 %, at least."""
ON_A_CLUSTER = {60: 0.5504, 90: 0.3176, 120: 0.2459, 180: 0.2208, 240: 0.2035, 480: 0.1855}
"""The validation losses of the quickstart's model by its training examples: steeper than any power law at first."""
SEEDS_OF_A_CLUSTER = {
    60: (0.5774, 0.5233),
    90: (0.2994, 0.3357),
    120: (0.2569, 0.2348),
    180: (0.2318, 0.2098),
    240: (0.1926, 0.2145),
}


def predicted(measured: Sequence[Measured], seeds: int = 2, worthwhile: float = WORTHWHILE) -> Gain:
    variance = variances(measured)
    assert variance is not None
    return gain_of_doubling(measured, variance, worthwhile, seeds)


def holds(found: Gain, gain: float) -> bool:
    return found.low <= gain <= found.high


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_of_ninety_percent_holds_the_true_gain_and_the_measured_one(name: str, seeds: int) -> None:
    """The true gain, which has no noise of its own, more often."""
    truth, chance, true, measured = TRUTHS[name], random.Random(f"{name} {seeds}"), 0, 0
    for _ in range(2 * DRAWS):
        found = trained(truth, chance, seeds)
        interval = predicted(found, seeds)
        before = mean(one.error for one in found if one.examples == SIZES[-1])
        after = mean(graded(truth, 2 * SIZES[-1], chance).error for _ in range(seeds))
        true += holds(interval, truth.gain)
        measured += holds(interval, before - after)
    assert true >= HELD * 2 * DRAWS, f"true: {true} of {2 * DRAWS}"
    assert measured >= HELD * 2 * DRAWS, f"measured: {measured} of {2 * DRAWS}"


@pytest.mark.parametrize("noise", [0.003, 0.02])
@pytest.mark.parametrize("name", TRUTHS)
def test_the_interval_of_a_loss_holds_the_measured_gain_however_little_seeds_differ(name: str, noise: float) -> None:
    losses, chance, held = Losses(TRUTHS[name].error, lambda n: noise), random.Random(f"{name} {noise}"), 0
    for _ in range(2 * DRAWS):
        measured = losses.trained(chance)
        held += holds(predicted(measured), losses.measured_gain(measured, chance))
    assert held >= HELD * 2 * DRAWS, f"{held} of {2 * DRAWS}"


def on_a_cluster(examples: int) -> float:
    """Straight lines between what was measured, over the logarithm of the examples."""
    sizes = list(ON_A_CLUSTER)
    above = max(1, bisect.bisect_left(sizes, examples))
    low, high = sizes[above - 1], sizes[above]
    share = math.log(examples / low) / math.log(high / low)
    return ON_A_CLUSTER[low] + share * (ON_A_CLUSTER[high] - ON_A_CLUSTER[low])


SMALL = tuple(SEEDS_OF_A_CLUSTER)
BENT = {
    "as on a cluster, where seeds differ by 7 % of the loss": Losses(
        on_a_cluster, lambda n: 0.07 * on_a_cluster(n), SMALL
    ),
    "as on a cluster, where seeds differ as much at all sizes": Losses(on_a_cluster, lambda n: 0.02, SMALL),
    "two power laws, of which the steep one soon ends": Losses(
        lambda n: 0.1 + 0.1 * (n / 240) ** -0.3 + 0.02 * (n / 240) ** -2, lambda n: 0.015, SMALL
    ),
    "two power laws of similar weight": Losses(
        lambda n: 0.25 + 0.06 * (n / 1500) ** -0.2 + 0.006 * (n / 1500) ** -1.2, lambda n: 0.005
    ),
    "a power law after a fast beginning": Losses(
        lambda n: 0.3 + 0.08 * (n / 1500) ** -0.3 + 0.1 * math.exp(-n / 300), lambda n: 0.01
    ),
    "each doubling brings as much as the one before": Losses(
        lambda n: 0.4 - 0.035 * math.log2(n / 1500), lambda n: 0.01
    ),
}


@pytest.mark.parametrize("name", BENT)
def test_the_interval_holds_the_measured_gain_where_the_curve_bends_off_a_power_law(name: str) -> None:
    """Of the trainings whose scores are near enough to a power law to be told from none: of others nothing is said."""
    losses, chance, held, told = BENT[name], random.Random(name), 0, 0
    for _ in range(2 * DRAWS):
        measured = losses.trained(chance)
        if error_increases(measured, variances(measured) or {}) or not fits_curve(measured):
            continue
        told += 1
        held += holds(predicted(measured), losses.measured_gain(measured, chance))
    assert told >= DRAWS / 4, f"{told} of {2 * DRAWS}"
    assert held >= HELD * told, f"{held} of {told}"


def test_the_interval_of_a_run_on_a_cluster_holds_what_twice_the_data_brought_there() -> None:
    """The interval of the curve alone was 0.030 to 0.056, and called it worth it for certain."""
    measured = [Measured(size, loss) for size, losses in SEEDS_OF_A_CLUSTER.items() for loss in losses]
    found = predicted(measured, worthwhile=0.005)
    assert holds(found, ON_A_CLUSTER[240] - ON_A_CLUSTER[480])
    assert found.probability < SURE


@pytest.mark.parametrize("seeds", [2, 4])
def test_what_is_called_worth_it_or_not_measures_so_in_nine_of_ten(seeds: int) -> None:
    """Of curves drawn at random, steep and flat ones, with little noise and much."""
    chance, measured_as = random.Random(seeds), {"worth it": list[bool](), "not worth it": list[bool]()}
    for _ in range(4 * DRAWS):
        truth = Truth(chance.uniform(0.1, 0.4), chance.uniform(0, 0.12), chance.uniform(0.05, 1))
        noise = 10 ** chance.uniform(-2.7, -1.7)
        losses = Losses(truth.error, lambda n, noise=noise: noise)
        measured = losses.trained(chance, seeds)
        probability = predicted(measured, seeds).probability
        is_worth_it = losses.measured_gain(measured, chance, seeds) >= WORTHWHILE
        if probability >= SURE:
            measured_as["worth it"].append(is_worth_it)
        elif probability <= 1 - SURE:
            measured_as["not worth it"].append(not is_worth_it)
    for verdict, right in measured_as.items():
        assert len(right) >= DRAWS / 10, verdict
        assert sum(right) >= SURE * len(right), f"{verdict}: {sum(right)} of {len(right)}"


CLOSEST = tuple(round(SIZES[-1] * LEAST_SPAN ** (-step / 3)) for step in (3, 2, 1, 0))
"""The sizes that lie closest together of those that are still told of."""


@pytest.mark.parametrize("sizes", [SIZES, CLOSEST], ids=["of sixteen times", "of the least span"])
@pytest.mark.parametrize("worthwhile", [0.0005, 0.01])
@pytest.mark.parametrize("noise", [0.0005, 0.01, 0.05])
def test_a_truly_flat_curve_is_never_called_worth_it(noise: float, worthwhile: float, sizes: tuple[int, ...]) -> None:
    losses, chance = Losses(lambda n: 0.3, lambda n: noise, sizes), random.Random(f"{noise} {worthwhile}")
    called = sum(predicted(losses.trained(chance), worthwhile=worthwhile).probability >= SURE for _ in range(DRAWS))
    assert called == 0


@pytest.mark.parametrize("sizes", [SIZES, CLOSEST], ids=["of sixteen times", "of the least span"])
def test_the_interval_of_a_truly_flat_curve_holds_the_measured_gain(sizes: tuple[int, ...]) -> None:
    losses, chance, held = Losses(lambda n: 0.3, lambda n: SEED_NOISE, sizes), random.Random(len(sizes)), 0
    for _ in range(2 * DRAWS):
        measured = losses.trained(chance)
        held += holds(predicted(measured), losses.measured_gain(measured, chance))
    assert held >= HELD * 2 * DRAWS, f"{held} of {2 * DRAWS}"


@pytest.mark.parametrize(("name", "is_likely"), [("steep", True), ("flat", False)])
def test_a_steep_curve_is_distinguished_from_a_flat_one(name: str, is_likely: bool) -> None:
    """By thirty trainings without noise of their measurement, which are as good as it gets."""
    measured = Losses(TRUTHS[name].error, lambda n: SEED_NOISE / 5).trained(random.Random(17), seeds=6)
    probability = predicted(measured, seeds=6).probability
    assert probability > 0.9 if is_likely else probability < 0.1


def test_more_seeds_make_the_interval_narrower() -> None:
    losses, chance = Losses(TRUTHS["steep"].error, lambda n: SEED_NOISE), random.Random(5)
    few, many = (predicted(losses.trained(chance, seeds), seeds) for seeds in (2, 10))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_seeds_that_differ_most_at_the_largest_size_make_the_interval_wider() -> None:
    """New trainings are as large or larger: small sizes, whose seeds hardly differ, tell little of their noise."""

    def width(noisy: int) -> float:
        error, signs = TRUTHS["medium"].error, (-1, 1)
        found = predicted(
            [Measured(n, error(n) + (0.02 if n == noisy else 0.004) * one) for n in SIZES for one in signs]
        )
        return found.high - found.low

    assert width(SIZES[-1]) > 1.2 * width(SIZES[0])


def test_the_same_trainings_have_the_same_interval() -> None:
    measured = trained(TRUTHS["medium"], random.Random(5), 2)
    assert predicted(measured) == predicted(list(reversed(measured)))
