"""Held-out examples and limits. Pure; the seed determines the choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune_api.finetunejob import Limit
from finetune_trainer.data.select.near_duplicates import Positions


@dataclass(frozen=True)
class Split:
    """Positions, counted from 0, in the order that the seed shuffled them to."""

    rest: Positions
    held_out: Positions


def hold_out(count: int, *, seed: int, percent: int | None = None) -> Split:
    """Hold out `percent` of so many examples, at least one; None: no example."""
    order = np.random.default_rng(seed).permutation(count)
    size = 0 if percent is None or not count else max(1, count * percent // 100)
    return Split(rest=order[size:], held_out=order[:size])


def take(shuffled: Positions, limit: Limit | None) -> Positions:
    """The first ones, so that a smaller subset is inside every larger one of the same order."""
    count = kept = len(shuffled)
    if limit is not None and limit.examples is not None:
        kept = min(kept, limit.examples)
    if limit is not None and limit.percent is not None:
        kept = min(kept, max(1, count * limit.percent // 100))
    return shuffled[:kept]
