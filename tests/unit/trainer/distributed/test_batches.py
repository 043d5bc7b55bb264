"""The global batch is what the spec says, whatever the number of processes."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_trainer.distributed.batches import BatchSplit, examples_in_step, split_batch
from finetune_trainer.process.failures import DiagnosedError


@pytest.mark.parametrize(
    ("batch_size", "processes", "max_length", "expected"),
    [
        (16, 1, 512, BatchSplit(16, 1)),
        (16, 2, 512, BatchSplit(8, 1)),
        (64, 1, 512, BatchSplit(32, 2)),
        (12, 2, 4096, BatchSplit(3, 2)),
        (7, 1, 4096, BatchSplit(1, 7)),
        (8, 2, 100_000, BatchSplit(1, 4)),
        (1, 1, 64, BatchSplit(1, 1)),
    ],
)
def test_the_split_makes_exactly_the_batch(
    batch_size: int, processes: int, max_length: int, expected: BatchSplit
) -> None:
    split = split_batch(batch_size, processes, max_length)
    assert split == expected
    assert split.micro_batch_size * split.accumulation_steps * processes == batch_size


@pytest.mark.parametrize(("max_length", "micro_batch_size"), [(512, 4), (1024, 2), (4096, 1)])
def test_packed_rows_whose_attention_needs_a_mask_are_few_in_a_micro_batch(
    max_length: int, micro_batch_size: int
) -> None:
    assert split_batch(32, 2, max_length, masked=True) == BatchSplit(micro_batch_size, 16 // micro_batch_size)


@pytest.mark.parametrize(
    ("examples", "batch_size", "by_step"), [(43, 4, [4] * 10 + [3]), (8, 4, [4, 4]), (3, 8, [3]), (1, 1, [1])]
)
def test_the_last_step_of_an_epoch_has_the_examples_that_are_left(
    examples: int, batch_size: int, by_step: list[int]
) -> None:
    assert [examples_in_step(examples, batch_size, step) for step in range(2 * len(by_step))] == 2 * by_step


@pytest.mark.parametrize(("batch_size", "processes", "advice"), [(16, 3, "15 or 18"), (2, 4, "4 or 8")])
def test_a_batch_that_can_not_be_divided_is_refused_with_those_that_can(
    batch_size: int, processes: int, advice: str
) -> None:
    with pytest.raises(DiagnosedError, match=f"Use {advice}") as refused:
        split_batch(batch_size, processes, 64)
    assert refused.value.failure.reason is Reason.INVALID_SPEC
    assert not refused.value.failure.retryable
