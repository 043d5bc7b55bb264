"""Quality issues of a valid dataset: duplicates, near duplicates, conflicting answers, leaks. Pure.

Memory is 48 bytes per example, whatever its length.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.read.examples import Example, digest, fingerprint
from finetune_trainer.data.select.near_duplicates import (
    ORDERS,
    Positions,
    Signatures,
    Texts,
    near_duplicates,
    signature,
    similar_pairs,
)

NONE = -1
"""In place of a position: the example has no counterpart."""


class ExampleIndex:
    """Hashes and signatures of the examples of a set, in order."""

    def __init__(self) -> None:
        self._fingerprints = array("Q")
        self._prompts = array("Q")
        self._signatures = array("B")

    def add(self, example: Example) -> None:
        """Append an example."""
        self._fingerprints.append(int.from_bytes(fingerprint(example)[:8], "big"))
        self._prompts.append(int.from_bytes(digest(example.asked(), size=8), "big"))
        self._signatures.frombytes(signature(example.text()).tobytes())

    def part(self, positions: Positions) -> ExampleIndex:
        """The index of the examples at these positions."""
        found = ExampleIndex()
        found._fingerprints.frombytes(self.fingerprints[positions].tobytes())
        found._prompts.frombytes(self.prompts[positions].tobytes())
        found._signatures.frombytes(self.signatures[positions].tobytes())
        return found

    def __len__(self) -> int:
        return len(self._fingerprints)

    @property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Hashes of the whole examples, shape (examples,)."""
        return np.frombuffer(self._fingerprints, dtype=np.uint64)

    @property
    def prompts(self) -> NDArray[np.uint64]:
        """Hashes of the prompts, shape (examples,); of preference pairs together with the unordered answers."""
        return np.frombuffer(self._prompts, dtype=np.uint64)

    @property
    def signatures(self) -> Signatures:
        """MinHash signatures of the texts, shape (examples, ORDERS)."""
        return np.frombuffer(self._signatures, dtype=np.uint8).reshape(-1, ORDERS)


@dataclass(frozen=True)
class QualityIssues:
    """For each training example, the position of the one that it duplicates or contradicts, or NONE."""

    duplicates: Positions
    """It equals an earlier one."""
    near_duplicates: Positions
    """It is similar to an earlier one, but not equal."""
    conflicts: Positions
    """It has the prompt of another one, with another answer."""


def find_issues(training: ExampleIndex, among: Positions | None = None) -> QualityIssues:
    """Compare every example of the training set with the others; `among`: only those at these positions, ascending."""
    if among is not None and len(among) < len(training):
        found = find_issues(training.part(among))
        parts = (found.duplicates, found.near_duplicates, found.conflicts)
        return QualityIssues(*(_placed(part, among, len(training)) for part in parts))
    duplicates = _repeated(training.fingerprints)
    unique = np.flatnonzero(duplicates == NONE)
    similar = near_duplicates(Texts(training.signatures, unique))
    near = np.full(len(training), NONE, dtype=np.int64)
    near[unique] = np.where(similar == NONE, NONE, unique[similar])
    return QualityIssues(duplicates, near, _conflicts(training.prompts, training.fingerprints))


def find_leaks(training: ExampleIndex, validation: ExampleIndex, held_out: Positions) -> Positions:
    """For each training example, the position of an equal or similar validation example, or NONE.

    `held_out`: the positions in `validation` that are evaluated on.
    """
    leaks = np.full(len(training), NONE, dtype=np.int64)
    count = len(held_out)
    if not count or not len(training):
        return leaks
    of_validation = Texts(validation.signatures, held_out)
    pairs = similar_pairs(of_validation, Texts(training.signatures, np.arange(len(training))))
    of_both = pairs[(pairs[:, 0] >= count) & (pairs[:, 1] < count)]
    leaks[of_both[::-1, 0] - count] = held_out[of_both[::-1, 1]]
    fingerprints, first = np.unique(validation.fingerprints[held_out], return_index=True)
    places = np.searchsorted(fingerprints, training.fingerprints).clip(max=len(fingerprints) - 1)
    same = fingerprints[places] == training.fingerprints
    leaks[same] = held_out[first[places[same]]]
    return leaks


def _placed(found: Positions, among: Positions, count: int) -> Positions:
    """What was found of a part, by the positions of the whole; the others have no counterpart."""
    whole = np.full(count, NONE, dtype=np.int64)
    whole[among] = np.where(found == NONE, NONE, among[found])
    return whole


def _repeated(fingerprints: NDArray[np.uint64]) -> Positions:
    _, first, inverse = np.unique(fingerprints, return_index=True, return_inverse=True)
    earlier: Positions = first[inverse]
    return np.where(earlier == np.arange(len(fingerprints)), NONE, earlier)


def _conflicts(prompts: NDArray[np.uint64], fingerprints: NDArray[np.uint64]) -> Positions:
    """For each example whose prompt has several answers, the position of one with another answer; else NONE."""
    found = np.full(len(prompts), NONE, dtype=np.int64)
    if not len(prompts):
        return found
    order = np.argsort(prompts, kind="stable")
    starts = np.flatnonzero(np.r_[True, prompts[order][1:] != prompts[order][:-1]])
    sizes = np.diff(np.r_[starts, len(order)])
    first = np.repeat(order[starts], sizes)
    differs = fingerprints[order] != fingerprints[first]
    beyond = len(order)
    others = np.minimum.reduceat(np.where(differs, order, beyond), starts)
    other = np.where(differs, first, np.repeat(others, sizes))
    found[order] = np.where(other == beyond, NONE, other)
    return found
