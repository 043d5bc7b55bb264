"""Which examples are in which split of a revision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.dataset import Cleaning, DatasetSplit
from finetune_trainer.data.read.examples import CompletionExample
from finetune_trainer.data.select.quality import ExampleIndex
from finetune_trainer.dataset.choice import Choice, Examples, choose, divide
from tests.unit.trainer.texts import words

HELD_OUT = DatasetSplit(validation_percent=10, test_percent=20)
KEEP = Cleaning(duplicates="Keep", leaks="Keep")


def example(number: int) -> CompletionExample:
    """Unlike every other one."""
    return CompletionExample(prompt=words(number, 12), completion=words(number + 10**6, 4))


def examples(
    numbers: Sequence[int], groups: Sequence[int] | None = None, parts: Sequence[int] | None = None, **changes: object
) -> Examples:
    index = ExampleIndex()
    for number in numbers:
        index.add(example(number))
    return Examples(
        **{
            "index": index,
            "groups": np.array(numbers if groups is None else groups, dtype=np.uint64),
            "parts": np.array([0] * len(numbers) if parts is None else parts, dtype=np.int64),
            "weights": [1],
            **changes,
        }  # type: ignore[arg-type]
    )


def sizes(choice: Choice) -> list[int]:
    return [len(positions) for positions in choice.splits.values()]


def test_without_shares_everything_is_for_training() -> None:
    assert sizes(choose(examples(range(20)), KEEP, DatasetSplit(), 17)) == [20, 0, 0]


def test_shares_are_exact_where_every_example_is_a_group_of_its_own() -> None:
    choice = choose(examples(range(100)), KEEP, HELD_OUT, 17)
    assert sizes(choice) == [70, 10, 20]
    assert sorted(np.concatenate(list(choice.splits.values()))) == list(range(100))


def test_a_held_out_split_has_at_least_the_smallest_group() -> None:
    choice = choose(examples(range(12), groups=[1] * 8 + [2] * 3 + [3]), KEEP, DatasetSplit(test_percent=1), 17)
    assert list(choice.splits["test"]) == [11]


@given(
    groups=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    validation=st.integers(0, 50),
    test=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_no_group_is_in_two_splits_and_none_gets_more_than_its_share(
    groups: list[int], validation: int, test: int, seed: int
) -> None:
    split = DatasetSplit(validation_percent=validation, test_percent=test)
    found = divide(np.array(groups, dtype=np.uint64), split, seed)
    where = {group: {int(at) for at, one in zip(found, groups, strict=True) if one == group} for group in groups}
    assert all(len(splits) == 1 for splits in where.values())
    for number, percent in ((1, validation), (2, test)):
        filled = int((found == number).sum())
        share = max(1, len(groups) * percent // 100)
        groups_in = {group for group, splits in where.items() if splits == {number}}
        assert filled <= share or len(groups_in) == 1
        assert percent or not filled


def test_most_groups_stay_where_they_are_when_others_are_added() -> None:
    split = DatasetSplit(validation_percent=20)
    before = divide(np.arange(100, dtype=np.uint64), split, 17)
    after = divide(np.arange(110, dtype=np.uint64), split, 17)
    assert int((before != after[:100]).sum()) <= 4


def test_an_example_that_comes_twice_is_taken_once() -> None:
    choice = choose(examples([1, 2, 1, 3, 2]), Cleaning(), DatasetSplit(), 17)
    assert list(choice.splits["training"]) == [0, 1, 3]
    assert choice.left_out.duplicates == 2


def test_what_is_held_out_is_not_trained_on_though_it_is_in_another_group() -> None:
    twice = examples([*range(10), *range(10)], groups=range(20))
    leaking = choose(twice, KEEP, DatasetSplit(test_percent=20), 17)
    clean = choose(twice, Cleaning(duplicates="Keep"), DatasetSplit(test_percent=20), 17)
    held_out = {int(at) % 10 for at in leaking.splits["test"]}
    trained = [int(at) % 10 for at in leaking.splits["training"]]
    assert held_out & set(trained)
    assert not held_out & {int(at) % 10 for at in clean.splits["training"]}
    assert clean.left_out.leaks == len([at for at in trained if at in held_out])


def test_validation_examples_that_are_in_the_test_split_are_left_out() -> None:
    twice = examples([*range(50), *range(50)], groups=range(100))
    choice = choose(twice, Cleaning(duplicates="Keep"), DatasetSplit(validation_percent=40, test_percent=40), 17)
    of = {name: {int(at) % 50 for at in positions} for name, positions in choice.splits.items()}
    assert not of["validation"] & of["test"]
    assert not of["training"] & (of["validation"] | of["test"])


def test_what_screening_drops_is_in_no_split() -> None:
    flagged = np.array([number % 2 == 0 for number in range(20)])
    choice = choose(examples(range(20), unwanted=flagged), KEEP, DatasetSplit(validation_percent=20), 17)
    assert sizes(choice) == [8, 2, 0]
    assert all(int(at) % 2 for positions in choice.splits.values() for at in positions)
    assert choice.left_out.screening == 10


def test_every_split_mirrors_the_weights() -> None:
    merged = examples(range(200), parts=[0] * 120 + [1] * 80, weights=[1, 3])
    choice = choose(merged, KEEP, DatasetSplit(test_percent=40), 17)
    for name in ("training", "test"):
        rare, common = (int((merged.parts[choice.splits[name]] == part).sum()) for part in (0, 1))
        assert common == int((choice.splits[name] >= 120).sum())
        assert rare == common // 3
    assert choice.left_out.weights == 200 - sum(sizes(choice))


def test_the_seed_decides_and_nothing_else() -> None:
    merged = examples(range(60), parts=[0] * 40 + [1] * 20, weights=[1, 1])
    once, again, other = (choose(merged, KEEP, HELD_OUT, seed) for seed in (17, 17, 18))
    assert [list(one) for one in once.splits.values()] == [list(one) for one in again.splits.values()]
    assert [list(one) for one in once.splits.values()] != [list(one) for one in other.splits.values()]
