"""The best trial: the one with the best score, or the cheapest that can't be told apart from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.finetunesweep import BestTrial, TrialStatus


def best_trial(trials: Sequence[TrialStatus], sign: int) -> BestTrial | None:
    """None: no trial has a score. `sign`: what a score is multiplied by, so that lower is better."""
    scored = [(sign * trial.score, trial.number, trial) for trial in trials if trial.score is not None]
    if not scored:
        return None
    first = min(scored, key=lambda one: one[:2])[2]
    tied = [first, *(trial for _, _, trial in scored if trial is not first and _overlap(trial, first))]
    best = min(tied, key=lambda trial: (_cost(trial), sign * (trial.score or 0.0), trial.number))
    assert best.score is not None
    return BestTrial(
        number=best.number,
        fine_tune_job_name=best.fine_tune_job_name,
        score=best.score,
        low=best.low,
        high=best.high,
        tied_with=sorted(trial.number for trial in tied if trial is not best) or None,
        values=best.values,
    )


def _overlap(one: TrialStatus, other: TrialStatus) -> bool:
    """Whether both have intervals, and a score that would be in both."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high


def _cost(trial: TrialStatus) -> int:
    return trial.accelerator_seconds or trial.seconds or 0
