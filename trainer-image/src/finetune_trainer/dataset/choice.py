"""Which examples are in which split of a revision. Pure; the seed determines the choice.

What screening drops is left out first, then what `prepare` drops. The rest is divided by groups, then what leaks into a
held-out split is left out, and at last each split gets as much of each part as the weights say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_api.dataset import SPLIT_NAMES, Cleaning, DatasetSplit, LeftOut
from finetune_api.dataset_reference import SplitName
from finetune_trainer.data.select.filters import Mask, QualityIssue, leave_out
from finetune_trainer.data.select.near_duplicates import Positions
from finetune_trainer.data.select.quality import NONE, ExampleIndex, find_issues, find_leaks
from finetune_trainer.dataset.groups import Groups

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """What is chosen from: of each example its hashes, its group, the number of its part, and if it is unwanted."""

    index: ExampleIndex
    groups: Groups
    parts: Numbers
    weights: Sequence[int]
    unwanted: Mask | None = None


@dataclass(frozen=True)
class Choice:
    """The examples of each split, by ascending positions; `groups`: how many groups there were to be divided."""

    splits: Mapping[SplitName, Positions]
    issues: tuple[QualityIssue, ...]
    left_out: LeftOut
    groups: int


def choose(examples: Examples, prepare: Cleaning, split: DatasetSplit, seed: int) -> Choice:
    """Choose the examples of each split."""
    count = len(examples.index)
    kept = np.ones(count, dtype=bool) if examples.unwanted is None else ~examples.unwanted
    left_out = {"screening": count - int(kept.sum())}
    found = find_issues(examples.index, np.flatnonzero(kept))
    issues = [
        QualityIssue("duplicates", found.duplicates, prepare.duplicates == "Drop"),
        QualityIssue("near_duplicates", found.near_duplicates, prepare.near_duplicates == "Drop"),
        QualityIssue("conflicts", found.conflicts, prepare.conflicts == "Drop"),
    ]
    left_out |= {issue.kind: leave_out(kept, issue.positions) for issue in issues if issue.dropped}
    candidates = np.flatnonzero(kept)
    numbers = divide(examples.groups[candidates], split, seed)
    splits = {name: candidates[numbers == at] for at, name in enumerate(SPLIT_NAMES)}
    leaks = QualityIssue("leaks", _leaks(examples.index, splits), prepare.leaks == "Drop")
    if leaks.dropped:
        left_out["leaks"] = leave_out(kept, leaks.positions)
        splits = {name: positions[kept[positions]] for name, positions in splits.items()}
    before = sum(map(len, splits.values()))
    splits = {
        name: weighted(positions, examples.parts, examples.weights, [seed, at])
        for at, (name, positions) in enumerate(splits.items())
    }
    left_out["weights"] = before - sum(map(len, splits.values()))
    groups = len(np.unique(examples.groups[candidates]))
    return Choice(splits, (*issues, leaks), LeftOut(**left_out), groups)


def divide(groups: Groups, split: DatasetSplit, seed: int) -> Numbers:
    """For each example the number of its split in SPLIT_NAMES: the groups are divided, whole ones.

    Groups are taken in the order of a hash, so that most stay where they are when others are added. Each held-out split
    gets those that still fit into its share, and at least the smallest.
    """
    names, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort([_order(seed, int(name)) for name in names], kind="stable")
    found = np.zeros(len(names), dtype=np.int64)
    for number, percent in ((2, split.test_percent), (1, split.validation_percent)):
        share, free = max(1, len(groups) * percent // 100), [at for at in order if not found[at]]
        if not percent or not free:
            continue
        filled = 0
        for at in free:
            if filled + sizes[at] <= share:
                found[at], filled = number, filled + int(sizes[at])
        if not filled:
            found[min(free, key=lambda at: int(sizes[at]))] = number
    numbers: Numbers = found[of_group]
    return numbers


def weighted(positions: Positions, parts: Numbers, weights: Sequence[int], seed: Sequence[int]) -> Positions:
    """As many of each part as the weights allow, none twice: the part that runs out first limits all."""
    if len(weights) == 1:
        return positions
    of_part = [positions[parts[positions] == number] for number in range(len(weights))]
    least = min(range(len(weights)), key=lambda number: len(of_part[number]) / weights[number])
    taken = []
    for number, found in enumerate(of_part):
        size = len(of_part[least]) * weights[number] // weights[least]
        taken.append(np.random.default_rng([*seed, number]).permutation(found)[:size])
    return np.sort(np.concatenate(taken))


def _leaks(index: ExampleIndex, splits: Mapping[SplitName, Positions]) -> Positions:
    """For each training example that is (almost) in a held-out split, and each validation example that is in the test
    split, the position of the other one; else NONE."""
    leaks = np.full(len(index), NONE, dtype=np.int64)
    training, validation, test = (splits[name] for name in SPLIT_NAMES)
    for positions, held_out in ((validation, test), (training, np.concatenate([validation, test]))):
        leaks[positions] = find_leaks(index, index, held_out)[positions]
    return leaks


def _order(seed: int, group: int) -> int:
    text = f"{seed}/{group}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
