"""Which examples are chosen, by `dataset.prepare`, `splitPercent` and `limit`. Pure; the seed determines the choice.

What `dataset.screening` drops is left out first, then what `dataset.prepare` drops, then `splitPercent` holds out its
share of the rest, then what leaks into it is left out, then `limit` is taken, then what is too long is left out. No
step but the limit looks at the limit, so that smaller subsets stay inside larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from finetune_api.finetunejob import Dataset, Dropped, Limit
from finetune_trainer.data.select.near_duplicates import Positions
from finetune_trainer.data.select.quality import NONE, ExampleIndex, find_issues, find_leaks

Mask = NDArray[np.bool_]
"""For each example of a set, whether it is chosen."""

ISSUE_TEXTS = {
    "duplicates": "are the same as an earlier one",
    "near_duplicates": "are almost the same as an earlier one",
    "conflicts": "have the prompt of another one, and another answer",
    "leaks": "are also, or almost, in the validation set: evalLoss is too low",
}


@dataclass(frozen=True)
class QualityIssue:
    """One kind of quality issue in the training set: for each example the position of the other one, or NONE."""

    kind: str
    """A key of ISSUE_TEXTS."""
    others: Positions
    dropped: bool

    @property
    def positions(self) -> Positions:
        """The positions of the examples that have the issue, ascending."""
        return np.flatnonzero(self.others != NONE)


@dataclass(frozen=True)
class Prepared:
    """The chosen examples of both sets. Without its own files, the validation set is held out from the training set."""

    training: Mask
    validation: Mask
    issues: tuple[QualityIssue, ...]
    dropped: Dropped


@dataclass(frozen=True)
class Unwanted:
    """The examples of each set that screening leaves out; None: nothing is."""

    training: Mask | None = None
    validation: Mask | None = None

    @property
    def count(self) -> int:
        """Of both sets."""
        return sum(int(mask.sum()) for mask in (self.training, self.validation) if mask is not None)


def prepare(
    dataset: Dataset,
    training: ExampleIndex,
    validation: ExampleIndex | None,
    seed: int,
    unwanted: Unwanted = Unwanted(),
) -> Prepared:
    """Choose the examples. `validation`: the index of the validation set, if it has its own files."""
    settings = dataset.prepare
    kept = _wanted(len(training), unwanted.training)
    found = find_issues(training, np.flatnonzero(kept))
    issues = [
        QualityIssue("duplicates", found.duplicates, settings.duplicates == "Drop"),
        QualityIssue("near_duplicates", found.near_duplicates, settings.near_duplicates == "Drop"),
        QualityIssue("conflicts", found.conflicts, settings.conflicts == "Drop"),
    ]
    dropped = {"screening": unwanted.count}
    dropped |= {issue.kind: leave_out(kept, issue.positions) for issue in issues if issue.dropped}
    candidates = np.flatnonzero(kept)
    percent = dataset.validation.split_percent if dataset.validation is not None else None
    split = hold_out(len(candidates), seed=seed, percent=percent)
    if validation is None:
        of, held_out = training, candidates[split.held_out]
    else:
        of, held_out = validation, np.flatnonzero(_wanted(len(validation), unwanted.validation))
    rest = candidates[split.rest]
    leaks = np.full(len(training), NONE, dtype=np.int64)
    leaks[rest] = find_leaks(training, of, held_out)[rest]
    issues.append(QualityIssue("leaks", leaks, settings.leaks == "Drop"))
    if settings.leaks == "Drop":
        dropped["leaks"] = leave_out(kept, issues[-1].positions)
        rest = rest[kept[rest]]
    return Prepared(
        training=_mask(len(training), take(rest, dataset.training.limit)),
        validation=_mask(len(of), held_out),
        issues=tuple(issues),
        dropped=Dropped(**dropped),
    )


def prepare_known(dataset: Dataset, training: int, validation: int | None, seed: int) -> Prepared:
    """The same of so many examples that a Dataset has cleaned before: there is nothing to look for."""
    rest = hold_out(training, seed=seed).rest
    held_out = np.arange(0 if validation is None else validation)
    return Prepared(
        training=_mask(training, take(rest, dataset.training.limit)),
        validation=_mask(training if validation is None else validation, held_out),
        issues=(),
        dropped=Dropped(),
    )


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
        # As it is written: in floating point, 10,000 * 0.57 is less than 5,700.
        kept = min(kept, max(1, int(count * Decimal(str(limit.percent)) / 100)))
    return shuffled[:kept]


def _wanted(count: int, unwanted: Mask | None) -> Mask:
    return np.ones(count, dtype=bool) if unwanted is None else ~unwanted


def leave_out(kept: Mask, positions: Positions) -> int:
    """Remove these from the mask. Returns how many of them were still in it."""
    count = int(kept[positions].sum())
    kept[positions] = False
    return count


def _mask(count: int, positions: Positions) -> Mask:
    mask = np.zeros(count, dtype=bool)
    mask[positions] = True
    return mask
