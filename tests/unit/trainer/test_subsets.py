"""Which examples are trained on: nested subsets, and a validation share that no limit touches."""

from __future__ import annotations

import itertools

import pytest

from finetune_api.finetunejob import Limit
from finetune_trainer.data.subsets import select


@pytest.mark.parametrize("seed", range(5))
def test_smaller_subsets_are_inside_larger_ones(seed: int) -> None:
    subsets = [set(select(200, seed=seed, limit=Limit(percent=percent)).training) for percent in (10, 25, 50, 100)]
    assert [len(subset) for subset in subsets] == [20, 50, 100, 200]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(subsets))


def test_what_is_held_out_does_not_depend_on_the_limit() -> None:
    whole = select(100, seed=3, split_percent=10)
    limited = select(100, seed=3, split_percent=10, limit=Limit(examples=5))
    assert whole.validation == limited.validation
    assert len(whole.validation) == 10
    assert sorted(whole.training + whole.validation) == list(range(100))
    assert set(limited.training) < set(whole.training)


def test_other_seeds_choose_other_examples() -> None:
    assert select(100, seed=1, split_percent=10) != select(100, seed=2, split_percent=10)


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [
        (10, None, 10),
        (10, Limit(examples=50), 10),
        (10, Limit(examples=3), 3),
        (10, Limit(percent=1), 1),
        (10, Limit(examples=2, percent=50), 2),
    ],
)
def test_a_limit_keeps_at_least_one_and_at_most_all(count: int, limit: Limit | None, expected: int) -> None:
    assert len(select(count, seed=0, limit=limit).training) == expected
