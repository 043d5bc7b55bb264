"""How many rows TRL packs sequences into, from their lengths alone. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

PACKED_AT_ONCE = 1000
"""Rows that `datasets` hands to TRL's packing at a time."""


def packed_rows(lengths: Sequence[int], max_length: int) -> int:
    """Best fit decreasing, as TRL's "bfd": the longest first, each into the fullest row that has room for it.

    `lengths`: tokens of each sequence, in the dataset's order; what is longer than `max_length` is cut.
    """
    rows = 0
    for start in range(0, len(lengths), PACKED_AT_ONCE):
        spaces: list[int] = []
        for length in sorted((min(item, max_length) for item in lengths[start : start + PACKED_AT_ONCE]), reverse=True):
            place = bisect_left(spaces, length)
            if place == len(spaces):
                rows += 1
            space = (max_length if place == len(spaces) else spaces.pop(place)) - length
            if space:
                insort(spaces, space)
    return rows
