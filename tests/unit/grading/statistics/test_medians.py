"""The median's interval by order statistics, against the tables of Conover, "Practical Nonparametric Statistics"."""

from __future__ import annotations

import random

import pytest

from finetune_grading.statistics.medians import median


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21), (100, 40, 61)])
def test_the_interval_is_from_one_order_statistic_to_its_mirror_image(count: int, low: int, high: int) -> None:
    values = [float(value) for value in range(1, count + 1)]
    random.Random(17).shuffle(values)
    found = median(values)
    assert found is not None
    assert (found.mean, found.low, found.high) == ((count + 1) / 2, low, high)


def test_of_too_few_values_there_is_none() -> None:
    """Of five, the median is outside of all of them in 1 of 16 samples."""
    assert median([1.0] * 5) is None
    assert median([]) is None


def test_it_covers_the_median_of_a_skewed_distribution() -> None:
    draw = random.Random(17)
    covered = 0
    for _ in range(1000):
        found = median([draw.lognormvariate(0.0, 1.5) for _ in range(25)])
        assert found is not None
        covered += found.low <= 1.0 <= found.high
    assert covered >= 950


def test_many_values_are_no_trouble() -> None:
    found = median([float(value) for value in range(100_000)])
    assert found is not None
    assert found.high - found.low == pytest.approx(620, abs=2), "1.96 standard deviations of a binomial, both ways"
