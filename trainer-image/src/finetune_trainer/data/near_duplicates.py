"""Texts that are almost the same, found by MinHash: 128 bytes a text, whatever its length.

A text is its set of word 3-shingles (lower case, punctuation left out). Of each of 32 random orders of all shingles the
first one is kept; the share of orders in which two texts agree estimates their Jaccard similarity. Texts are compared
only where four orders in a row agree (eight bands of four), so that the work does not grow with the square of the set.

Broder, "On the resemblance and containment of documents", 1997; Leskovec et al., "Mining of Massive Datasets", 3.4.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = 32
BAND = 4
SHINGLE = 3
SIMILAR = 0.8
MOST_COMPARED = 64  # of one bucket: a bucket of a thousand boilerplate texts must not cost a million comparisons

Signature = NDArray[np.uint32]

_WORDS = re.compile(r"\w+")
_RANDOM = np.random.default_rng(17)
_WORD_FACTORS = _RANDOM.integers(1 << 63, size=SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ORDER_FACTORS = _RANDOM.integers(1 << 63, size=ORDERS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def signature(text: str) -> Signature:
    """ORDERS numbers that similar texts have mostly in common."""
    words = [zlib.crc32(word.encode()) for word in _WORDS.findall(text.lower())]
    words += [0] * (SHINGLE - len(words))
    hashes = np.array(words, dtype=np.uint64)
    count = len(words) - SHINGLE + 1
    shingles = np.zeros(count, dtype=np.uint64)
    for place, factor in enumerate(_WORD_FACTORS):
        shingles = _mixed(shingles + hashes[place : place + count] * factor)
    smallest: Signature = ((shingles[:, None] * _ORDER_FACTORS) >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return smallest


def near_duplicates(signatures: Sequence[Signature]) -> dict[int, int]:
    """Position of each text that is similar to an earlier one -> position of that one."""
    found: dict[int, int] = {}
    buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
    for position, mine in enumerate(signatures):
        keys = [(band, mine[band : band + BAND].tobytes()) for band in range(0, ORDERS, BAND)]
        candidates = {earlier for key in keys for earlier in buckets[key][:MOST_COMPARED]}
        similar = [earlier for earlier in candidates if similarity(mine, signatures[earlier]) >= SIMILAR]
        if similar:
            found[position] = min(similar)
        else:
            for key in keys:
                buckets[key].append(position)
    return found


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of a value reaches every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def similarity(one: Signature, other: Signature) -> float:
    """Estimate of the Jaccard similarity of the two texts' shingles."""
    return float(np.mean(one == other))
