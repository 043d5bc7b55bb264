"""Which examples of a training file are trained on and which are held out. Pure, and fixed by the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_api.finetunejob import Limit


@dataclass(frozen=True)
class Selection:
    """Positions in the training file, counted from 0, in the file's order."""

    training: tuple[int, ...]
    validation: tuple[int, ...]


def select(count: int, *, seed: int, split_percent: int | None = None, limit: Limit | None = None) -> Selection:
    """Hold out `split_percent`, then limit what is left.

    One shuffled order serves every limit: a smaller subset is inside every larger one of the same seed, and
    what is held out does not depend on the limit.
    """
    order = [int(position) for position in np.random.default_rng(seed).permutation(count)]
    held_out = 0 if split_percent is None else max(1, count * split_percent // 100)
    validation, rest = order[:held_out], order[held_out:]
    return Selection(training=tuple(sorted(rest[: _limited(len(rest), limit)])), validation=tuple(sorted(validation)))


def _limited(count: int, limit: Limit | None) -> int:
    kept = count
    if limit is not None and limit.examples is not None:
        kept = min(kept, limit.examples)
    if limit is not None and limit.percent is not None:
        kept = min(kept, max(1, count * limit.percent // 100))
    return kept
