"""Processes make batches of images where there are CPUs and shared memory for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from finetune_trainer.train.image_workers import IMAGE_BYTES, image_workers, largest_batch

MIB = 2**20


@pytest.mark.parametrize(
    ("cpus", "batch", "shared", "workers"),
    [
        (16, 200 * MIB, 64 * 1024 * MIB, 4),
        (3, 200 * MIB, 64 * 1024 * MIB, 2),
        (1, 200 * MIB, 64 * 1024 * MIB, 0),
        (16, 200 * MIB, 1200 * MIB, 1),
        (16, 50 * MIB, 64 * MIB, 0),
    ],
    ids=["plenty", "few CPUs", "one CPU", "little shared memory", "what a container has unless it is told otherwise"],
)
def test_there_are_as_many_as_the_machine_has_room_for(cpus: int, batch: int, shared: int, workers: int) -> None:
    assert image_workers(cpus, batch, shared) == workers


def test_a_batch_may_have_the_most_images_in_each_row(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"images": [["a"], ["a", "b", "c"], []]})
    assert largest_batch(rows, 4) == 4 * 3 * IMAGE_BYTES
