"""The best trial: the one with the best score, or a cheaper one whose interval overlaps with that one's. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.finetunesweep import BestTrial, TrialStatus

LEAST_SAVING = 0.2
"""Seconds vary by some percent from run to run: less is no reason to prefer a worse score."""


def best_trial(trials: Sequence[TrialStatus], sign: int) -> BestTrial | None:
    """None: no trial has a score. `sign`: what a score is multiplied by, so that lower is better."""
    scored = by_score(trials, sign)
    if not scored:
        return None
    best = first = scored[0]
    tied = [first, *(trial for trial in scored[1:] if _overlap(trial, first))]
    for trial in tied:
        if _is_cheaper(trial, best):
            best = trial
    return as_best(best, sorted(trial.number for trial in tied if trial is not best) or None)


def as_best(trial: TrialStatus, tied_with: list[int] | None = None) -> BestTrial:
    """A trial that has a score, as the best."""
    assert trial.score is not None
    return BestTrial(
        number=trial.number,
        fine_tune_job_name=trial.fine_tune_job_name,
        score=_rounded(trial.score),
        low=None if trial.low is None else _rounded(trial.low),
        high=None if trial.high is None else _rounded(trial.high),
        digest=trial.digest,
        tied_with=tied_with,
        values=trial.values,
    )


def by_score(trials: Sequence[TrialStatus], sign: int) -> list[TrialStatus]:
    """Those that have a score, the best one first."""
    scored = [(sign * trial.score, trial.number, trial) for trial in trials if trial.score is not None]
    return [trial for _, _, trial in sorted(scored, key=lambda one: one[:2])]


def interval(low: float | None, high: float | None) -> str:
    """A score's interval, after the score; empty if a status does not have it."""
    return "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"


def _overlap(one: TrialStatus, other: TrialStatus) -> bool:
    """Whether both have intervals, and a score that would be in both."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _is_cheaper(one: TrialStatus, other: TrialStatus) -> bool:
    """Whether training it again would save that much for sure. All trials have the same accelerators.

    What a disrupted trial needs is between its last attempt, which may have resumed, and all of them, which may have
    repeated steps.
    """
    most, least = one.seconds, other.seconds if other.attempt_seconds is None else other.attempt_seconds
    return most is not None and least is not None and most < least and most <= (1 - LEAST_SAVING) * least


def _rounded(score: float) -> float:
    """For the column of `kubectl get`, which shows every digit."""
    return float(f"{score:.6g}")
