from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.evaluation.statistics import Estimate, bootstrap, estimate, estimate_difference, wilson

scores = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=50)


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
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    result = wilson(successes, trials)
    assert result.mean == successes / trials
    assert result.low == pytest.approx(low, abs=5e-5)
    assert result.high == pytest.approx(high, abs=5e-5)


def test_bootstrap_agrees_with_the_normal_interval_where_that_is_right() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, 2000).tolist()
    result = bootstrap(values)
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert result.low == pytest.approx(result.mean - half, abs=half / 10)
    assert result.high == pytest.approx(result.mean + half, abs=half / 10)


def test_scores_of_0_and_1_get_wilsons_interval_and_others_a_bootstraps() -> None:
    assert estimate([1.0, 0.0, 1.0]) == wilson(2, 3)
    assert estimate([1.0, 0.5, 1.0]) == bootstrap([1.0, 0.5, 1.0])


def test_the_same_scores_give_the_same_interval() -> None:
    values = [0.1, 0.9, 0.4, 0.7]
    assert bootstrap(values) == bootstrap(values)


def test_pairing_makes_a_steady_small_gain_certain() -> None:
    baseline = [i / 100 for i in range(100)]
    gain = estimate_difference([score + 0.01 for score in baseline], baseline)
    assert gain.low == pytest.approx(0.01)
    assert gain.high == pytest.approx(0.01)


def test_a_gain_on_half_of_the_examples_is_not_hidden_by_the_other_half() -> None:
    gain = estimate_difference([1.0] * 50 + [0.0] * 50, [0.0] * 100)
    assert gain.mean == 0.5
    assert 0.39 < gain.low < 0.42
    assert 0.58 < gain.high < 0.61


def test_more_examples_than_fit_in_one_draw() -> None:
    result = bootstrap([0.25, 0.75] * 3000)
    assert result.low < result.mean < result.high


@pytest.mark.parametrize("call", [lambda: estimate([]), lambda: bootstrap([])])
def test_nothing_has_no_mean(call: object) -> None:
    with pytest.raises(ValueError, match="there is no"):
        call()  # type: ignore[operator]


def test_models_must_be_compared_on_the_same_examples() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        estimate_difference([1.0, 0.0], [1.0])


@settings(deadline=None)
@given(scores)
def test_the_mean_lies_in_its_interval_and_both_within_0_and_1(values: list[float]) -> None:
    result = estimate(values)
    assert 0 <= result.low <= result.mean <= result.high <= 1


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=300))
def test_so_it_is_for_scores_of_0_and_1(values: list[float]) -> None:
    result = estimate(values)
    assert 0 <= result.low <= result.mean <= result.high <= 1
    assert result.low < result.high


@settings(deadline=None)
@given(scores)
def test_identical_scores_have_no_difference(values: list[float]) -> None:
    assert estimate_difference(values, values) == Estimate(0.0, 0.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_difference_lies_in_its_interval_and_turns_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = estimate_difference(left, right), estimate_difference(right, left)
    assert -1 <= there.low <= there.mean <= there.high <= 1
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
