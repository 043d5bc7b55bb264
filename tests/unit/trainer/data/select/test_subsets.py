"""Which examples are held out and learned from: nested subsets, and a validation share that no limit touches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from finetune_api.finetunejob import Limit
from finetune_trainer.data.select.filters import hold_out, take


@pytest.mark.parametrize("seed", range(5))
def test_smaller_subsets_are_inside_larger_ones(seed: int) -> None:
    shuffled = hold_out(200, seed=seed).rest
    subsets = [set(take(shuffled, Limit(percent=percent))) for percent in (10, 25, 50, 100)]
    assert [len(subset) for subset in subsets] == [20, 50, 100, 200]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(subsets))


def test_a_share_is_held_out_and_the_rest_is_the_rest() -> None:
    split = hold_out(100, seed=3, percent=10)
    assert len(split.held_out) == 10
    assert sorted([*split.rest, *split.held_out]) == list(range(100))


def test_other_seeds_choose_other_examples() -> None:
    one, other = hold_out(100, seed=1, percent=10), hold_out(100, seed=2, percent=10)
    assert list(one.held_out) != list(other.held_out)


def test_of_nothing_nothing_is_held_out() -> None:
    assert len(hold_out(0, seed=1, percent=10).held_out) == 0


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [
        (10, None, 10),
        (10, Limit(examples=50), 10),
        (10, Limit(examples=3), 3),
        (10, Limit(percent=1), 1),
        (10, Limit(percent=25), 2),
        (1500, Limit(percent=6.25), 93),
        (10_000, Limit(percent=0.57), 57),  # in floating point, 10,000 * 0.57 is less than 5,700
        (10_000, Limit(percent=0.01), 1),
    ],
)
def test_a_limit_keeps_at_least_one_and_at_most_all(count: int, limit: Limit | None, expected: int) -> None:
    assert len(take(np.arange(count), limit)) == expected
