"""Which trials are ended early: a pure function of their losses at each rung, a step at which trials are compared.

The same losses prune the same trials. But a trial that is pruned stays so, and which losses were known by then
depends on the order in which they came.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.finetunesweep import ASHA, Median, Prune

MOST_RUNGS = 32


@dataclass(frozen=True)
class TrialRungs:
    """A trial and the rungs that it has reached, the last one included."""

    number: int
    losses: Mapping[int, float | None]
    """By step. None: not known, since it was not read in time. It is compared with nothing: the trial is promoted."""
    has_succeeded: bool = False


def rung_step(prune: Prune, rung: int) -> int:
    """The step of a rung, counting from 0."""
    if prune.asha is not None:
        return prune.asha.minimum_steps * int(prune.asha.reduction_factor**rung)
    assert prune.median is not None
    return prune.median.minimum_steps * (rung + 1)


def rungs_at(prune: Prune, step: int) -> int:
    """How many rungs a trial has reached at this step."""
    return next((rung for rung in range(MOST_RUNGS) if rung_step(prune, rung) > step), MOST_RUNGS)


def trials_to_prune(prune: Prune, trials: Sequence[TrialRungs]) -> frozenset[int]:
    """The numbers of the trials that are not promoted from the last rung that they have reached."""
    return frozenset(trial.number for trial in trials if trial.losses and not _is_promoted(prune, trials, trial))


def _is_promoted(prune: Prune, trials: Sequence[TrialRungs], trial: TrialRungs) -> bool:
    step = max(trial.losses)
    if trial.losses[step] is None:
        return True
    if prune.asha is not None:
        return _is_among_the_best(prune.asha, trials, trial, step)
    return prune.median is None or _is_no_worse_than_the_median(prune.median, trials, trial, step)


def _is_among_the_best(asha: ASHA, trials: Sequence[TrialRungs], trial: TrialRungs, step: int) -> bool:
    """Asynchronous successive halving (https://arxiv.org/abs/1810.05934).

    Rung k is at minimumSteps * reductionFactor^k steps. Of the trials that have reached a rung, one in reductionFactor
    is promoted; this is judged again whenever another one reaches it.
    """
    known = [(other.losses.get(step), other.number) for other in trials]
    there = sorted((loss, number) for loss, number in known if loss is not None)
    if len(there) < asha.reduction_factor:
        return True  # too few to compare
    return trial.number in [number for _, number in there[: len(there) // asha.reduction_factor]]


def _is_no_worse_than_the_median(median: Median, trials: Sequence[TrialRungs], trial: TrialRungs, step: int) -> bool:
    """By the lowest loss so far, as one evaluation may be an unlucky one."""
    rivals = [one for one in trials if one.has_succeeded and one.losses.get(step) is not None]
    others = [_lowest(one, step) for one in rivals]
    return len(others) < median.minimum_trials or _lowest(trial, step) <= statistics.median(others)


def _lowest(trial: TrialRungs, step: int) -> float:
    """Of those known by this step, at which it is known."""
    return min(loss for at, loss in trial.losses.items() if at <= step and loss is not None)
