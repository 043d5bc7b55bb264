"""Near duplicates by MinHash, with 32 bytes per text.

A text is its set of word 3-shingles (lower case, punctuation left out). Of each of 32 random orders of all shingles the
first one is kept, as 8 bits of its hash; the share of orders in which two texts agree estimates their Jaccard
similarity. Texts are compared only where four orders in a row agree (eight bands of four), and of those each one only
with the first and the three before it, so that the work does not grow with the square of the set.

Broder, "On the resemblance and containment of documents", 1997; Leskovec et al., "Mining of Massive Datasets", 3.4;
Li and König, "b-bit minwise hashing", 2010.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDERS = 32
SHINGLE = 3
SIMILAR = 0.8
BAND = 4
COMPARED_BEFORE = (None, 1, 2, 3)
"""Of the texts that agree: the first one, and those so many places before."""
COMPARED_AT_ONCE = 16384  # pairs; bounds memory
LONGEST_TEXT = 65536  # characters; of longer ones only the beginning is compared

Signature = NDArray[np.uint8]
"""Of one text: ORDERS numbers."""
Signatures = NDArray[np.uint8]
"""Of several: a row each."""
Positions = NDArray[np.int64]

_WORDS = re.compile(r"\w+")
_RANDOM = np.random.default_rng(17)
_WORD_FACTORS = _RANDOM.integers(1 << 63, size=SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ORDER_FACTORS = _RANDOM.integers(1 << 63, size=ORDERS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def signature(text: str) -> Signature:
    """The MinHash signature of a text, shape (ORDERS,), uint8: similar texts agree in most entries."""
    words = _WORDS.findall(text[:LONGEST_TEXT].lower())
    words += [""] * (SHINGLE - len(words))
    hashes = np.fromiter(map(zlib.crc32, map(str.encode, words)), np.uint64, len(words))
    shingles = _mixed(np.convolve(hashes, _WORD_FACTORS, mode="valid"))
    smallest = (shingles[:, None] * _ORDER_FACTORS).min(axis=0)
    kept: Signature = (smallest >> np.uint64(32)).astype(np.uint8)  # a product's low bits are poorly mixed
    return kept


@dataclass(frozen=True)
class Texts:
    """Some of the texts of a set: a signature for each of the set, and the positions of these."""

    signatures: Signatures
    positions: Positions

    def __len__(self) -> int:
        return len(self.positions)


def near_duplicates(texts: Texts) -> Positions:
    """For each text the number of the earlier one that it is similar to, -1 where there is none.

    Only texts that are similar to no earlier one count as such: of three in a row that each resemble the one before
    them, the third stays when it does not resemble the first.
    """
    found = np.full(len(texts), -1, dtype=np.int64)
    for later, earlier in similar_pairs(texts):
        if found[later] < 0 and found[earlier] < 0:
            found[later] = earlier
    return found


def similar_pairs(*groups: Texts) -> Positions:
    """Rows of (number, earlier number) of texts that are similar, sorted. The groups are numbered through."""
    count = sum(map(len, groups))
    codes = np.empty(0, dtype=np.int64)
    for band in range(ORDERS // BAND):
        codes = np.union1d(codes, _similar_in_band(groups, band, count))
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def similarity(one: Signature, other: Signature) -> float:
    """Estimate of the Jaccard similarity of the two texts' shingles."""
    return float(np.mean(one == other))


def _similar_in_band(groups: Sequence[Texts], band: int, count: int) -> Positions:
    """Pairs that agree in the band and are similar, each as later * count + earlier."""
    keys = np.concatenate([group.signatures.view(np.uint32)[group.positions, band] for group in groups])
    order = np.argsort(keys, kind="stable")
    places = np.arange(count)
    starts = np.ones(count, dtype=bool)
    starts[1:] = keys[order[1:]] != keys[order[:-1]]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    found = [np.empty(0, dtype=np.int64)]
    for step in COMPARED_BEFORE:
        other = first if step is None else places - step
        compared = np.flatnonzero((other >= first) & (other < places))
        for start in range(0, len(compared), COMPARED_AT_ONCE):
            chunk = compared[start : start + COMPARED_AT_ONCE]
            later, earlier = order[chunk], order[other[chunk]]
            similar = (_signatures(groups, later) == _signatures(groups, earlier)).mean(axis=1) >= SIMILAR
            found.append(later[similar] * count + earlier[similar])
    return np.concatenate(found)


def _signatures(groups: Sequence[Texts], numbers: Positions) -> Signatures:
    """Of the texts with these numbers."""
    signatures: Signatures = np.empty((len(numbers), ORDERS), dtype=np.uint8)
    start = 0
    for group in groups:
        inside = (numbers >= start) & (numbers < start + len(group))
        signatures[inside] = group.signatures[group.positions[numbers[inside] - start]]
        start += len(group)
    return signatures


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of a value reaches every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
