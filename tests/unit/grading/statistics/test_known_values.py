"""Cases 13 to 15 of shared/reference/evaluation.md and its tables of what a number of examples can show."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_grading.statistics.clusters import cluster
from finetune_grading.statistics.estimates import estimate, estimate_difference
from finetune_grading.statistics.intervals import Estimate, adjusted_student, mcnemar, wilson
from finetune_grading.statistics.power import (
    Z_80,
    examples_to_decide,
    examples_to_detect,
    minimum_detectable_difference,
)
from finetune_grading.statistics.reducers import REDUCERS

# Case 14: 200 examples, 135 that both get right, 25 only the candidate, 15 only the baseline.
CANDIDATE = [1.0] * 135 + [1.0] * 25 + [0.0] * 15 + [0.0] * 25
BASELINE = [1.0] * 135 + [0.0] * 25 + [1.0] * 15 + [0.0] * 25

# Case 15: ten clusters of five: five all right, one 4/5, three all wrong, one 1/5.
CLUSTERS = [[1.0] * 5] * 5 + [[1.0] * 4 + [0.0]] + [[0.0] * 5] * 3 + [[1.0] + [0.0] * 4]
CLUSTERED = [score for scores in CLUSTERS for score in scores]
LABELS = [label for label, scores in enumerate(CLUSTERS) for _ in scores]


def test_case_13_intervals_of_right_and_wrong() -> None:
    for right, of, low, high in (
        (45, 50, 0.7864, 0.9565),
        (8, 10, 0.4902, 0.9433),
        (0, 20, 0, 0.1611),
        (20, 20, 0.8389, 1),
    ):
        found = estimate([1.0] * right + [0.0] * (of - right))
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert wilson(0, 100).high == pytest.approx(0.0370, abs=5e-5)
    assert wilson(0, 300).high == pytest.approx(0.0126, abs=5e-5)


def test_case_14_a_gain_of_five_points_that_shows_nothing() -> None:
    gain = estimate_difference(CANDIDATE, BASELINE)
    assert gain.estimate.mean == pytest.approx(0.05)
    assert (gain.estimate.low, gain.estimate.high) == (
        pytest.approx(-0.0126, abs=1e-4),
        pytest.approx(0.1126, abs=1e-4),
    )
    assert gain.p_value == pytest.approx(0.1539, abs=1e-4)


def test_case_14_equal_rows_leave_something_open() -> None:
    equal = [1.0] * 150 + [0.0] * 50
    gain = estimate_difference(equal, equal)
    assert gain.estimate.mean == 0
    assert (gain.estimate.low, gain.estimate.high) == (
        pytest.approx(-0.0135, abs=1e-4),
        pytest.approx(0.0135, abs=1e-4),
    )
    assert gain.p_value == 1
    assert gain.minimum_detectable > 0.01


def test_case_15_scores_that_come_in_clusters() -> None:
    found = cluster(CLUSTERED, LABELS)
    assert found.clusters == 10
    assert found.standard_error == pytest.approx(0.1520, abs=5e-5)
    assert found.standard_error * math.sqrt(9 / 10) == pytest.approx(0.1442, abs=5e-5), "without C/(C-1)"
    assert found.design_effect == pytest.approx(4.72, abs=0.01)
    mean = estimate(CLUSTERED, LABELS)
    assert mean.mean == pytest.approx(0.6)
    assert (mean.low, mean.high) == (pytest.approx(0.2561, abs=2e-4), pytest.approx(0.9439, abs=2e-4))
    alone = estimate(CLUSTERED)
    assert mean.low < alone.low < alone.high < mean.high


def test_a_gain_is_clustered_too() -> None:
    gain = estimate_difference(CLUSTERED, [0.5] * 50, LABELS)
    assert gain.estimate.high - gain.estimate.low == pytest.approx(0.6878, abs=5e-4)
    assert gain.p_value is None, "McNemar's test takes each example for one of its own"


def test_one_cluster_says_nothing_of_others() -> None:
    assert estimate([1.0, 1.0, 0.0], ["a"] * 3) == Estimate(2 / 3, 0, 1)


@pytest.mark.parametrize("wrong", [0, 1, 3])
@pytest.mark.parametrize(("sizes", "low"), [([250, 250], 0.0), ([50] * 10, 0.74), ([971, *[1] * 29], 0.2)])
def test_few_clusters_say_little_of_others_however_many_scores_they_have(
    sizes: list[int], low: float, wrong: int
) -> None:
    """All right, or nearly: Student over the clusters and one more at each end. [1] * 10, 0, 1: .917 +- .183."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    scores = [0.0] * wrong + [1.0] * (len(labels) - wrong)
    assert estimate(scores, labels).low <= low
    assert estimate_difference(scores, [0.0] * len(scores), labels).estimate.low <= low
    same = estimate_difference(scores, scores, labels).estimate
    assert (same.low, same.high) == (pytest.approx(-same.high), pytest.approx(-same.low))
    assert same.high > 0.25


def test_clusters_of_equal_size_are_adjusted_as_scores_are() -> None:
    labels = [label for label in range(10) for _ in range(50)]
    found, of_ten = estimate([1.0] * 500, labels), adjusted_student([1.0] * 10, least=0, most=1)
    assert (found.low, found.high) == (pytest.approx(of_ten.low), 1)


def test_clusters_that_differ_less_than_chance_would_have_it_are_adjusted() -> None:
    scores = [1.0] * 200 + [0.0] * 50 + [1.0] * 201 + [0.0] * 49
    assert estimate(scores, [0] * 250 + [1] * 250).low == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), st.integers(0, 5)), min_size=1, max_size=60))
def test_clusters_make_no_interval_narrower_and_none_a_point(rows: list[tuple[float, int]]) -> None:
    scores, labels = [score for score, _ in rows], [label for _, label in rows]
    alone, found = estimate(scores), estimate(scores, labels)
    assert 0 <= found.low <= alone.low <= found.mean <= alone.high <= found.high <= 1
    assert found.low < found.high


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60))
def test_scores_of_clusters_of_their_own_are_nearly_as_without(scores: list[float]) -> None:
    alone, found = estimate(scores), estimate(scores, range(len(scores)))
    assert found.high - found.low <= 2.5 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 0.0625), (10, 2, 0.0386), (15, 25, 0.1539), (20, 20, 1), (6, 0, 0.03125)],
)
def test_mcnemars_exact_test(only_first: int, only_second: int, p: float) -> None:
    """Known values: twice the tail of the binomial distribution with 1/2."""
    assert mcnemar(only_first, only_second) == pytest.approx(p, abs=5e-5)
    assert mcnemar(only_second, only_first) == pytest.approx(p, abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_is_the_sum_of_whole_numbers(only_first: int, only_second: int) -> None:
    differ = only_first + only_second
    tail = sum(math.comb(differ, count) for count in range(min(only_first, only_second) + 1))
    assert mcnemar(only_first, only_second) == pytest.approx(min(1, 2 * tail / 2**differ), rel=1e-9)


def test_mcnemars_test_of_many_examples_is_quick() -> None:
    started = time.process_time()
    assert mcnemar(50_300, 49_700) == pytest.approx(0.058, abs=0.001)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("difference", "discordance", "examples"),
    [(0.05, 0.1, 314), (0.05, 0.2, 628), (0.05, 0.3, 942), (0.02, 0.1, 1963), (0.02, 0.2, 3925), (0.02, 0.3, 5887)],
)
def test_the_number_of_examples_to_detect_a_difference_is_the_known_one(
    difference: float, discordance: float, examples: int
) -> None:
    assert examples_to_detect(difference, discordance) == examples


@pytest.mark.parametrize(("discordance", "detectable"), [(0.1, 0.040), (0.2, 0.056), (0.3, 0.069)])
def test_what_five_hundred_examples_can_show(discordance: float, detectable: float) -> None:
    differ = round(500 * discordance / 2)
    first = [1.0] * differ + [0.0] * differ + [1.0] * (500 - 2 * differ)
    second = [0.0] * differ + [1.0] * differ + [1.0] * (500 - 2 * differ)
    assert estimate_difference(first, second).minimum_detectable == pytest.approx(detectable, rel=0.05)
    normal = Estimate(0, -1.96 * math.sqrt(discordance / 500), 1.96 * math.sqrt(discordance / 500))
    assert minimum_detectable_difference(normal) == pytest.approx(detectable, abs=6e-4)
    assert pytest.approx(0.8416, abs=1e-4) == Z_80


def test_how_many_more_examples_would_decide() -> None:
    # Case 14: +.05, of which the interval reaches down to -.0126: to lie above 0 it takes (.0626/.05)^2 as many.
    assert examples_to_decide(0.05, -0.0126, 0.1126, 0.0, 200) == 114
    assert examples_to_decide(0.05, -0.0126, 0.1126, 0.1, 200) == 114
    assert examples_to_decide(0.5, 0.4, 0.6, 0.5, 100) is None
    assert examples_to_decide(0.5, 0.4999, 0.6, 0.4, 100) == 1


@pytest.mark.parametrize(
    ("reducer", "score"),
    [("Mean", 0.4), ("Median", 0.25), ("Max", 1), ("Min", 0), ("Majority", 0), ("PassAtK", 1), ("PassK", 0)],
)
def test_each_reducer_makes_one_score_of_the_samples_of_an_example(reducer: str, score: float) -> None:
    assert REDUCERS[reducer]([0.0, 0.25, 1.0, 0.25, 0.5], 0.5) == pytest.approx(score)


def test_a_majority_is_more_than_half_of_those_that_pass() -> None:
    assert REDUCERS["Majority"]([1.0, 0.5, 0.0, 0.0], 0.5) == 0
    assert REDUCERS["Majority"]([1.0, 0.5, 0.0], 0.5) == 1
    assert REDUCERS["PassK"]([1.0, 0.5], 0.5) == 1
    assert REDUCERS["PassAtK"]([0.0, 0.4], 0.5) == 0
