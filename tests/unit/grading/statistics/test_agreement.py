"""Agreement of two raters: published values, what holds for every table, how often intervals cover the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_grading.statistics import agreement as module
from finetune_grading.statistics.agreement import Verdicts, agreement, clopper_pearson, cohens_kappa
from finetune_grading.statistics.intervals import Estimate

tables = st.builds(Verdicts, *[st.integers(0, 200)] * 4).filter(lambda table: table.count > 0)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 5.
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearsons_interval(successes: int, trials: int, low: float, high: float) -> None:
    result = clopper_pearson(successes, trials)
    assert (result.low, result.mean, result.high) == (
        pytest.approx(low, abs=5e-5),
        successes / trials,
        pytest.approx(high, abs=5e-5),
    )


@pytest.mark.parametrize(("trials", "true"), [(20, 0.9), (30, 0.995), (100, 0.8), (100, 0.99), (200, 0.95)])
def test_the_exact_interval_covers_the_truth_95_times_in_100(trials: int, true: float) -> None:
    """Summed over all results, nothing drawn."""
    covered = sum(
        math.comb(trials, count) * true**count * (1 - true) ** (trials - count)
        for count in range(trials + 1)
        if (found := clopper_pearson(count, trials)).low <= true <= found.high
    )
    assert covered >= 0.95


def test_kappa_of_the_textbook_example_of_two_readers() -> None:
    """Of 50 applications both readers grant 20, and 5 and 10 only one of them: kappa is 0.4."""
    table = Verdicts(both_pass=20, only_judge=5, only_people=10, neither=15)
    assert cohens_kappa(table).mean == pytest.approx(0.4)
    assert agreement(table).mean == 0.7


@given(tables)
def test_the_standard_error_is_that_of_the_delta_method(table: Verdicts) -> None:
    """By differences of kappa itself, where the formula of 1969 has derivatives."""
    cells = np.array([table.both_pass, table.only_judge, table.only_people, table.neither], dtype=float) + 1
    shares = cells / cells.sum()

    def kappa(p: np.ndarray) -> float:
        observed = p[0] + p[3]
        expected = (p[0] + p[1]) * (p[0] + p[2]) + (p[2] + p[3]) * (p[1] + p[3])
        return float((observed - expected) / (1 - expected))

    slopes = np.array([(kappa(shares + step) - kappa(shares - step)) / 2e-6 for step in np.eye(4) * 1e-6])
    variance = (shares @ slopes**2 - (shares @ slopes) ** 2) / cells.sum()
    found, error = module._kappa(Verdicts(*(int(cell) for cell in cells)))
    assert found == pytest.approx(kappa(shares), abs=1e-12)
    assert error == pytest.approx(math.sqrt(variance), rel=1e-4, abs=1e-6)


@given(tables)
def test_intervals_hold_their_mean_stay_on_their_scale_and_are_no_points(table: Verdicts) -> None:
    kappa, agreed = cohens_kappa(table), agreement(table)
    assert -1 <= kappa.low <= kappa.mean <= kappa.high <= 1
    assert kappa.low < kappa.high
    assert 0 <= agreed.low <= agreed.mean <= agreed.high <= 1
    assert agreed.low < agreed.high


@given(tables)
def test_it_does_not_matter_who_is_called_the_judge_or_what_is_called_a_pass(table: Verdicts) -> None:
    swapped = Verdicts(table.both_pass, table.only_people, table.only_judge, table.neither)
    turned = Verdicts(table.neither, table.only_people, table.only_judge, table.both_pass)
    for other in (swapped, turned):
        assert agreement(other) == agreement(table)
        for name in ("mean", "low", "high"):
            assert getattr(cohens_kappa(other), name) == pytest.approx(getattr(cohens_kappa(table), name), abs=1e-9)


def test_who_passes_everything_has_shown_nothing() -> None:
    """95 % of outputs are good: a judge that says so of each agrees in 95 %, and no better than chance."""
    lenient = cohens_kappa(Verdicts(both_pass=95, only_judge=5, only_people=0, neither=0))
    assert lenient.mean == 0
    assert lenient.low < 0 < lenient.high
    assert cohens_kappa(Verdicts(100, 0, 0, 0)).mean == 0
    assert cohens_kappa(Verdicts(100, 0, 0, 0)).low < 0.6


@pytest.mark.parametrize("count", [30, 100, 300])
@pytest.mark.parametrize(
    "shares",
    [
        (0.45, 0.05, 0.05, 0.45),
        (0.8, 0.05, 0.05, 0.1),
        (0.3, 0.2, 0.2, 0.3),
        (0.55, 0.15, 0.02, 0.28),
        (0.9, 0.02, 0.03, 0.05),
    ],
)
def test_kappas_interval_covers_the_truth(count: int, shares: tuple[float, float, float, float]) -> None:
    """93 times in 100 or more: of 2,000 samples, drawn with a fixed seed."""
    true, _ = module._kappa(Verdicts(*(round(10_000 * share) for share in shares)))
    drawn = np.random.default_rng(17).multinomial(count, shares, size=2000)
    assert covers(lambda cells: cohens_kappa(Verdicts(*cells)), drawn, true) >= 0.93


def covers(interval: Callable[[list[int]], Estimate], drawn: np.ndarray, true: float) -> float:
    found = [interval([int(cell) for cell in cells]) for cells in drawn]
    return sum(one.low <= true <= one.high for one in found) / len(found)
