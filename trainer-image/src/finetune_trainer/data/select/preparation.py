"""Splits and filters the examples, by `dataset.prepare`, `splitPercent` and `limit`. Pure.

What `dataset.prepare` drops is left out first, then `splitPercent` holds out its share of the rest, then what leaks
into it is left out, then `limit` is taken, then what is too long is left out. No step but the limit looks at the
limit, so that smaller subsets stay inside larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_api.finetunejob import Dataset, Dropped
from finetune_trainer.data.select.near_duplicates import Positions
from finetune_trainer.data.select.quality import NONE, ExampleIndex, find_issues, find_leaks
from finetune_trainer.data.select.subsets import hold_out, take

Mask = NDArray[np.bool_]
"""For each example of a set, whether it is chosen."""

ISSUE_TEXTS = {
    "duplicates": "are the same as an earlier one",
    "near_duplicates": "are almost the same as an earlier one",
    "conflicts": "have the prompt of another one, and another answer",
    "leaks": "are also validated on, or almost: evalLoss will flatter",
}


@dataclass(frozen=True)
class QualityIssue:
    """One kind of quality issue in the training set: for each example the position of the other one, or NONE."""

    kind: str
    """A key of DOUBTS."""
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


def prepare(dataset: Dataset, training: ExampleIndex, validation: ExampleIndex | None, seed: int) -> Prepared:
    """Choose the examples. `validation`: the index of the validation set, if it has its own files."""
    settings = dataset.prepare
    found = find_issues(training)
    issues = [
        QualityIssue("duplicates", found.duplicates, settings.duplicates == "Drop"),
        QualityIssue("near_duplicates", found.near_duplicates, settings.near_duplicates == "Drop"),
        QualityIssue("conflicts", found.conflicts, settings.conflicts == "Drop"),
    ]
    kept = np.ones(len(training), dtype=bool)
    dropped = {issue.kind: _drop(kept, issue.positions) for issue in issues if issue.dropped}
    candidates = np.flatnonzero(kept)
    percent = dataset.validation.split_percent if dataset.validation is not None else None
    split = hold_out(len(candidates), seed=seed, percent=percent)
    if validation is None:
        of, held_out = training, candidates[split.held_out]
    else:
        of, held_out = validation, np.arange(len(validation))
    rest = candidates[split.rest]
    leaks = np.full(len(training), NONE, dtype=np.int64)
    leaks[rest] = find_leaks(training, of, held_out)[rest]
    issues.append(QualityIssue("leaks", leaks, settings.leaks == "Drop"))
    if settings.leaks == "Drop":
        dropped["leaks"] = _drop(kept, issues[-1].positions)
        rest = rest[kept[rest]]
    return Prepared(
        training=_mask(len(training), take(rest, dataset.training.limit)),
        validation=_mask(len(of), held_out),
        issues=tuple(issues),
        dropped=Dropped(**dropped),
    )


def _drop(kept: Mask, positions: Positions) -> int:
    """Remove these from the mask. Returns how many of them were still in it."""
    count = int(kept[positions].sum())
    kept[positions] = False
    return count


def _mask(count: int, positions: Positions) -> Mask:
    mask = np.zeros(count, dtype=bool)
    mask[positions] = True
    return mask
