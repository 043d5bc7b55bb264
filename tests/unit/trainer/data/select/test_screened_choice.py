"""What screening drops is left out before anything else is chosen."""

from __future__ import annotations

import numpy as np

from finetune_api.finetunejob import Dataset
from finetune_trainer.data.read.examples import CompletionExample
from finetune_trainer.data.select.filters import Unwanted, prepare
from finetune_trainer.data.select.quality import ExampleIndex


def index(*answers: str) -> ExampleIndex:
    found = ExampleIndex()
    for number, answer in enumerate(answers):
        found.add(CompletionExample(f"Question {number if answer != 'same' else 'same'}", answer))
    return found


def mask(count: int, *positions: int) -> np.ndarray:
    made = np.zeros(count, dtype=bool)
    made[list(positions)] = True
    return made


def dataset(**settings: object) -> Dataset:
    return Dataset.from_wire({"training": {"uri": "s3://data/t.jsonl", "limit": {"examples": 4}}, **settings})


def test_the_limit_is_filled_with_what_is_left() -> None:
    found = prepare(dataset(), index(*"abcdef"), None, 17, Unwanted(mask(6, 0, 3)))
    assert found.training.tolist() == [False, True, True, False, True, True]
    assert found.dropped.screening == 2


def test_the_held_out_share_holds_nothing_that_is_dropped() -> None:
    spec = dataset(validation={"splitPercent": 50})
    found = prepare(spec, index(*"abcdef"), None, 17, Unwanted(mask(6, 0, 3)))
    assert found.validation.sum() == 2
    assert found.training.sum() == 2
    assert not (found.training | found.validation)[[0, 3]].any()


def test_a_validation_set_of_its_own_is_screened_too() -> None:
    spec = dataset(validation={"uri": "s3://data/v.jsonl"})
    found = prepare(spec, index(*"abcdef"), index(*"xyz"), 17, Unwanted(mask(6), mask(3, 1)))
    assert found.validation.tolist() == [True, False, True]
    assert found.dropped.screening == 1


def test_an_example_is_no_duplicate_of_one_that_is_dropped() -> None:
    spec = dataset(prepare={"duplicates": "Drop"})
    found = prepare(spec, index("same", "b", "same", "same"), None, 17, Unwanted(mask(4, 0)))
    assert found.training.tolist() == [False, True, True, False]
    assert found.dropped.duplicates == 1
    duplicates = found.issues[0]
    assert {int(at): int(duplicates.others[at]) for at in duplicates.positions} == {3: 2}
