"""What is dealt out to several Pods, and the numbers of their batches."""

from __future__ import annotations

import pytest

from finetune_trainer.outputs.shard import WHOLE, Shard

THREE = [Shard(index, 3) for index in range(3)]


def test_every_item_is_dealt_to_one_pod() -> None:
    items = list(range(8))
    assert [shard.of(items) for shard in THREE] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert WHOLE.of(items) == items


@pytest.mark.parametrize("after", range(-1, 9))
def test_no_two_pods_number_a_batch_alike_however_late_they_begin(after: int) -> None:
    """Latency is measured by batch."""
    firsts = [shard.first_number(after) for shard in THREE]
    assert sorted(firsts) == [after + 1, after + 2, after + 3]
    assert [first % 3 for first in firsts] == [0, 1, 2]
    assert WHOLE.first_number(after) == after + 1
