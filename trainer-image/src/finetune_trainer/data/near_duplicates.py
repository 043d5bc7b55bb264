"""Texts that are almost the same, found by MinHash: 64 bytes a text, whatever its length.

A text is its set of word 3-shingles (lower case, punctuation left out). Of each of 32 random orders of all shingles the
first one is kept, as 16 bits of its hash; the share of orders in which two texts agree estimates their Jaccard
similarity. Texts are compared only where four orders in a row agree (eight bands of four), and of those each one only
with the first and the three before it, so that the work does not grow with the square of the set.

Broder, "On the resemblance and containment of documents", 1997; Leskovec et al., "Mining of Massive Datasets", 3.4;
Li and König, "b-bit minwise hashing", 2010.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

ORDERS = 32
SHINGLE = 3
SIMILAR = 0.8
COMPARED_BEFORE = (1, 2, 3)
COMPARED_AT_ONCE = 65536  # pairs; bounds memory
LONGEST_TEXT = 65536  # characters; of longer ones only the beginning is compared

Signature = NDArray[np.uint16]
"""Of one text: ORDERS numbers."""
Signatures = NDArray[np.uint16]
"""Of several: a row each."""
Positions = NDArray[np.int64]

_WORDS = re.compile(r"\w+")
_RANDOM = np.random.default_rng(17)
_WORD_FACTORS = _RANDOM.integers(1 << 63, size=SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ORDER_FACTORS = _RANDOM.integers(1 << 63, size=ORDERS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def signature(text: str) -> Signature:
    """ORDERS numbers that similar texts have mostly in common."""
    words = [zlib.crc32(word.encode()) for word in _WORDS.findall(text[:LONGEST_TEXT].lower())]
    words += [0] * (SHINGLE - len(words))
    hashes = np.array(words, dtype=np.uint64)
    count = len(words) - SHINGLE + 1
    shingles = np.zeros(count, dtype=np.uint64)
    for place, factor in enumerate(_WORD_FACTORS):
        shingles = _mixed(shingles + hashes[place : place + count] * factor)
    hashed = (shingles[:, None] * _ORDER_FACTORS) >> np.uint64(32)
    smallest: Signature = (hashed.min(axis=0) & np.uint64(0xFFFF)).astype(np.uint16)
    return smallest


def near_duplicates(signatures: Signatures) -> Positions:
    """For each text the position of the earlier one that it is similar to, -1 where there is none.

    Only texts that are similar to no earlier one count as such: of three in a row that each resemble the one before
    them, the third stays when it does not resemble the first.
    """
    found = np.full(len(signatures), -1, dtype=np.int64)
    for later, earlier in similar_pairs(signatures):
        if found[later] < 0 and found[earlier] < 0:
            found[later] = earlier
    return found


def similar_pairs(signatures: Signatures) -> Positions:
    """Rows of (position, earlier position), sorted, for texts that are similar."""
    count = len(signatures)
    bands = np.ascontiguousarray(signatures).view(np.uint64)
    found = [_similar_in_band(bands[:, band], signatures) for band in range(bands.shape[1])] if count else []
    codes = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def similarity(one: Signature, other: Signature) -> float:
    """Estimate of the Jaccard similarity of the two texts' shingles."""
    return float(np.mean(one == other))


def _similar_in_band(keys: NDArray[np.uint64], signatures: Signatures) -> Positions:
    """Pairs that agree in the band and are similar, each as later * count + earlier."""
    count = len(keys)
    order = np.argsort(keys, kind="stable")
    places = np.arange(count)
    starts = np.ones(count, dtype=bool)
    starts[1:] = keys[order[1:]] != keys[order[:-1]]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    found = [np.empty(0, dtype=np.int64)]
    for other in (first, *(places - step for step in COMPARED_BEFORE)):
        compared = np.flatnonzero((other >= first) & (other < places))
        for start in range(0, len(compared), COMPARED_AT_ONCE):
            chunk = compared[start : start + COMPARED_AT_ONCE]
            later, earlier = order[chunk], order[other[chunk]]
            similar = (signatures[later] == signatures[earlier]).mean(axis=1) >= SIMILAR
            found.append(later[similar] * count + earlier[similar])
    return np.concatenate(found)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of a value reaches every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
