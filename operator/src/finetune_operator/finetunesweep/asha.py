"""Asynchronous successive halving (https://arxiv.org/abs/1810.05934) as a pure function of the losses at each rung.

Rung k is at minimumSteps * reductionFactor^k steps. Of the trials that have reached a rung, one in reductionFactor may
go on; this is judged again whenever another one reaches it. Of the same losses, the same trials lose; but a trial that
is pruned stays so, and which ones were known by then depends on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.finetunesweep import ASHA

MOST_RUNGS = 32


@dataclass(frozen=True)
class Runner:
    """A trial and its loss at each rung that it has reached."""

    number: int
    rungs: Sequence[float]


def rung_step(asha: ASHA, rung: int) -> int:
    """The step of a rung, counting from 0."""
    return asha.minimum_steps * int(asha.reduction_factor**rung)


def rungs_at(asha: ASHA, step: int) -> int:
    """How many rungs a trial has reached at this step."""
    return next((rung for rung in range(MOST_RUNGS) if rung_step(asha, rung) > step), MOST_RUNGS)


def losers(asha: ASHA, trials: Sequence[Runner]) -> frozenset[int]:
    """The numbers of the trials that don't go on from the last rung that they have reached."""
    return frozenset(trial.number for trial in trials if trial.rungs and not _goes_on(asha, trials, trial))


def _goes_on(asha: ASHA, trials: Sequence[Runner], trial: Runner) -> bool:
    rung = len(trial.rungs) - 1
    there = sorted((other.rungs[rung], other.number) for other in trials if len(other.rungs) > rung)
    if len(there) < asha.reduction_factor:
        return True  # too few to compare
    return (trial.rungs[rung], trial.number) in there[: len(there) // asha.reduction_factor]
