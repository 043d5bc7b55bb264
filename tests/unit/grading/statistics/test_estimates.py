"""Intervals: known values, what holds for every sample, and how often they cover the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_grading.statistics.estimates import estimate
from finetune_grading.statistics.estimates import estimate_difference as difference
from finetune_grading.statistics.intervals import Estimate, adjusted_student, newcombe, student_quantile, wilson


def estimate_difference(scores: list[float], baseline: list[float]) -> Estimate:
    return difference(scores, baseline).estimate


scores = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=50)
answers = st.sampled_from([0.0, 1.0])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Known values: Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0000),
        (45, 50, 0.7864, 0.9565),
        (20, 20, 0.8389, 1.0000),
        (0, 100, 0.0000, 0.0370),
        (0, 300, 0.0000, 0.0126),
    ],
)
def test_wilsons_interval_has_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    result = wilson(successes, trials)
    assert result.mean == successes / trials
    assert result.low == pytest.approx(low, abs=5e-5)
    assert result.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # A known value: Newcombe 1998 (paired data), table II, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        # 200 examples of which neither model gets another one right, for three of four that both do.
        ((150, 0, 0, 50), -0.0135, 0.0135),
        ((135, 25, 15, 25), -0.0126, 0.1126),
    ],
)
def test_newcombes_interval_of_paired_answers(table: tuple[int, int, int, int], low: float, high: float) -> None:
    result = newcombe(*table)
    assert result.low == pytest.approx(low, abs=1e-4)
    assert result.high == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (5, 2.5706),
        (10, 2.2281),
        (29, 2.0452),
        (100, 1.9840),
        (10**6, 1.96),
    ],
)
def test_students_quantiles_have_the_values_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(degrees) == pytest.approx(quantile, rel=2e-3)


def test_many_values_have_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).uniform(0.2, 0.8, 2000).tolist()
    result = estimate(values)
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert result.low == pytest.approx(result.mean - half, abs=half / 10)
    assert result.high == pytest.approx(result.mean + half, abs=half / 10)


def test_scores_of_0_and_1_get_wilsons_and_newcombes_interval_and_others_students() -> None:
    assert estimate([1.0, 0.0, 1.0]) == wilson(2, 3)
    assert estimate([1.0, 0.5, 1.0]) == adjusted_student([1.0, 0.5, 1.0], least=0, most=1)
    assert estimate_difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0]) == newcombe(1, 1, 0, 1)
    assert estimate_difference([1.0, 0.5], [0.0, 0.0]) == adjusted_student([1.0, 0.5], least=-1, most=1)


def test_pairing_makes_a_steady_gain_plain() -> None:
    """Each example gains: far less is left open than by two means that are compared."""
    baseline = [i / 1000 for i in range(500)]
    gain = estimate_difference([score + 0.1 for score in baseline], baseline)
    apart = estimate([score + 0.1 for score in baseline]), estimate(baseline)
    assert gain.low > 0.09
    assert estimate_difference([score + 0.01 for score in baseline], baseline).low > 0.004
    assert gain.high - gain.low < (apart[0].high - apart[0].low + apart[1].high - apart[1].low) / 2


def test_a_gain_on_half_of_the_examples_is_not_hidden_by_the_other_half() -> None:
    gain = estimate_difference([1.0] * 50 + [0.0] * 50, [0.0] * 100)
    assert gain.mean == 0.5
    assert 0.39 < gain.low < 0.42
    assert 0.58 < gain.high < 0.61


@pytest.mark.parametrize("call", [lambda: estimate([]), lambda: estimate_difference([], [])])
def test_nothing_has_no_mean(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="there is no"):
        call()


def test_models_must_be_compared_on_the_same_examples() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        estimate_difference([1.0, 0.0], [1.0])


# What holds for every sample.


@settings(deadline=None)
@given(scores | st.lists(answers, min_size=1, max_size=300))
def test_the_mean_lies_in_an_interval_within_the_scale_that_is_never_a_point(values: list[float]) -> None:
    result = estimate(values)
    assert 0 <= result.low <= result.mean <= result.high <= 1
    assert result.high - result.low > 1 / (2 * len(values))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)
    | st.lists(st.tuples(answers, answers), min_size=1, max_size=300)
)
def test_so_does_a_difference_which_turns_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = estimate_difference(left, right), estimate_difference(right, left)
    assert -1 <= there.low <= there.mean <= there.high <= 1
    assert there.high - there.low > 1 / (2 * len(pairs))
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high, abs=1e-9)


@settings(deadline=None)
@given(scores | st.lists(answers, min_size=1, max_size=300))
def test_identical_scores_have_no_difference_and_leave_some_open_on_both_sides(values: list[float]) -> None:
    result = estimate_difference(values, values)
    assert result.mean == 0
    assert result.low < 0 < result.high
    assert result.low == pytest.approx(-result.high, abs=1e-9)


def test_a_gain_on_every_example_is_not_certain() -> None:
    gain = estimate_difference([1.0] * 250, [0.0] * 250)
    assert (gain.mean, gain.high) == (1.0, 1.0)
    assert gain.low == pytest.approx(0.9786, abs=5e-4)


# How often the truth lies in it.

Draw = Callable[[np.random.Generator, int], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]
POPULATIONS: dict[str, tuple[Draw, float]] = {
    "even": (lambda g, n: g.random(n), 0.5),
    "skewed": (lambda g, n: g.beta(2, 5, n), 2 / 7),
    "seldom anything": (lambda g, n: (g.random(n) < 0.05) * g.random(n), 0.025),
    "nearly always right": (lambda g, n: 1 - (g.random(n) < 0.1) * g.random(n), 0.95),
    "three values": (lambda g, n: g.choice([0, 0.5, 1], n, p=[0.1, 0.2, 0.7]), 0.8),
    "right or wrong": (lambda g, n: (g.random(n) < 0.9).astype(np.float64), 0.9),
}


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("examples", [20, 100])
def test_the_true_mean_is_covered(name: str, examples: int) -> None:
    draw, truth = POPULATIONS[name]
    generator = np.random.default_rng(5)
    found = [estimate(draw(generator, examples).tolist()) for _ in range(600)]
    assert np.mean([item.low <= truth <= item.high for item in found]) >= 0.92


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.05), (0.3, 0.1), (0.1, 0.02)])
@pytest.mark.parametrize("examples", [20, 100])
def test_the_true_difference_is_covered(gain: float, loss: float, examples: int) -> None:
    """Of answers that are right or wrong, and of scores between."""
    generator = np.random.default_rng(7)
    covered = {"answers": 0, "scores": 0}
    for _ in range(600):
        change = generator.choice([1.0, -1.0, 0.0], examples, p=[gain, loss, 1 - gain - loss])
        base = np.where(change > 0, 0.0, np.where(change < 0, 1.0, generator.integers(2, size=examples)))
        for kind, factor in (("answers", 1.0), ("scores", 0.5)):
            result = estimate_difference(((base + change) * factor).tolist(), (base * factor).tolist())
            covered[kind] += result.low <= (gain - loss) * factor <= result.high
    assert covered["answers"] / 600 >= 0.92
    assert covered["scores"] / 600 >= 0.92
