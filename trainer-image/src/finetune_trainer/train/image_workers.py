"""How many processes make batches of images while the accelerator computes: torch's DataLoader has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.data.images.images import HIGH_DETAIL_SIDE
from finetune_trainer.process.memory import available_memory

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (torch passes batches through it)
MOST_WORKERS = 4
IMAGE_BYTES = HIGH_DETAIL_SIDE**2 * 3 * 4
"""Of the largest image that is kept, as float32 numbers of three colours: about what processors make of it."""


def image_workers(cpus: int, batch_bytes: int, shared_bytes: int) -> int:
    """0: the training process makes its batches itself.

    Each worker has at most one batch ready, and the training two; an evaluation has workers of its own meanwhile.
    """
    return max(0, min(MOST_WORKERS, cpus - 1, shared_bytes // (2 * batch_bytes) - 2))


def largest_batch(rows: Any, per_pass: int) -> int:
    """The most bytes of the images in so many rows, of a `datasets.Dataset` with a column of images."""
    import pyarrow.compute as pc

    most = pc.max(pc.list_value_length(rows.data.column("images"))).as_py() or 0
    return max(1, most) * per_pass * IMAGE_BYTES


def free_for_batches(processes: int) -> int:
    """Bytes that a process of this node has for batches on their way. What is in /dev/shm is memory of the Pod."""
    if not SHARED_MEMORY.is_dir():
        return 0
    return min(shutil.disk_usage(SHARED_MEMORY).free, available_memory() // 2) // processes
