"""How a sweep ends; a finished one stays as it is until runId changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunesweep import BestTrial, CurveStatus, FineTuneSweepStatus, Phase, TrialStatus
from finetune_operator.core.conditions import Readiness, failed, missing_failure, ready
from finetune_operator.finetunesweep.ends import cancelled_sweep, end_sweep
from finetune_operator.finetunesweep.holdout import holdout_message, is_pending
from finetune_operator.finetunesweep.learning_curve.verdict import learning_curve
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision
from finetune_operator.finetunesweep.search.best import by_score, interval
from finetune_operator.finetunesweep.search.suggest import combinations
from finetune_operator.finetunesweep.smallest_model.choice import by_chance, chosen, none_passed
from finetune_operator.finetunesweep.trials import (
    are_pruned_now,
    counted,
    failures,
    has_failed,
    left_out,
    may_begin,
    running,
)
from finetune_operator.finetunesweep.views.job import SPEC_CHANGED

FINISHED: frozenset[Phase] = frozenset({"Succeeded", "Failed", "Cancelled"})
_ENDS = frozenset({Reason.SUCCEEDED, Reason.TRIALS_FAILED, Reason.GATE_FAILED})
_RAISED = " spec.budget allows more trials now, but this search is over: change spec.runId to search again."


def keep_finished(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Leave a finished sweep as it is until runId changes, and say so if its budget has been raised since."""
    if status.phase not in FINISHED or status.run_id != observed.spec.run_id:
        return None
    end = _recorded_end(status)
    if status.phase == "Cancelled" or (status.phase == "Failed" and end is None):
        if missing_failure(status.conditions, None) is None:
            return SweepDecision(status, None)
        end = cancelled_sweep() if status.phase == "Cancelled" else _without_best(observed, status)
        return SweepDecision(status, end)
    end, more = end or _found(observed, status), _RAISED if may_begin(observed.spec, status) else ""
    return SweepDecision(status, replace(end, message=f"{end.message.removesuffix(_RAISED)}{more}"))


def _recorded_end(status: FineTuneSweepStatus) -> Readiness | None:
    """How the sweep ended, as its conditions say: that is not derived again from a spec that may have changed since."""
    has_succeeded = status.phase == "Succeeded"
    kind, make = (ConditionType.READY, ready) if has_succeeded else (ConditionType.FAILED, failed)
    known = (one for one in status.conditions if (one.type, one.status) == (kind, "True") and one.reason in _ENDS)
    return next((make(Reason(one.reason), one.message) for one in known), None)


def fail_at_failures(
    observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime
) -> SweepDecision | None:
    """End the sweep when too many trials have failed: what they have in common is wrong."""
    if not has_failed(observed.spec, status):
        return None
    return end_sweep(observed, status, _failed(status), now)


def complete(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """End the sweep when no trial runs, none may begin, and those that are pruned can be cancelled."""
    if running(status) or may_begin(observed.spec, status):
        return None
    if is_pending(observed.spec, status) or are_pruned_now(status, observed.status):
        return None
    status = counted(observed.spec, status)
    if observed.spec.mode == "LearningCurve" and any(trial.score is not None for trial in status.trials):
        status = status.model_copy(update={"learning_curve": _curve(observed, status)})
    elif status.best is None:
        return end_sweep(observed, status, _without_best(observed, status), now)
    return end_sweep(observed, status, _found(observed, status), now)


def _curve(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> CurveStatus:
    """What the trials say, and which of them the budget left out."""
    found = learning_curve(observed.spec, status.trials)
    return found.model_copy(update={"message": f"{found.message}{left_out(observed.spec, status)}"})


def _without_best(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> Readiness:
    is_judged = any(trial.verdict is not None for trial in status.trials)
    if not is_judged or failures(status) >= observed.spec.budget.failures:
        return _failed(status, left_out(observed.spec, status))
    left = left_out(observed.spec, status)
    larger = "spec.budget, " if left else ""
    again = f"Change {larger}what is trained or what must be reached, and spec.runId."
    return failed(Reason.GATE_FAILED, f"{none_passed(status)}{left} {again}")


def _failed(status: FineTuneSweepStatus, left: str = "") -> Readiness:
    lost = [trial for trial in status.trials if trial.state == "Failed"]
    if not lost:
        message = "No trial has a result: all were cancelled."
    else:
        last = lost[-1]
        more = f"`kubectl describe ftj {last.fine_tune_job_name}` says more."
        if last.reason == SPEC_CHANGED:
            more = "it or its Evaluation has another spec than the sweep gives it, or another runId."
        message = (
            f"{len(lost)} of {len(status.trials)} trials failed, the last one, FineTuneJob "
            f"{last.fine_tune_job_name!r}, with {last.reason or 'an unknown reason'}: {more}"
        )
    return failed(Reason.TRIALS_FAILED, f"{message}{left} Fix the cause and change spec.runId to search again.")


def _found(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> Readiness:
    best = status.best
    if status.learning_curve is not None:
        return ready(Reason.SUCCEEDED, status.learning_curve.message)
    if best is None:
        return ready(Reason.SUCCEEDED, "The search is over.")
    trial = next((one for one in status.trials if one.number == best.number), None)
    if observed.spec.smallest_model is not None and trial is not None:
        tried = by_chance(observed.spec.smallest_model, status.trials, trial)
        return ready(Reason.SUCCEEDED, f"{chosen(status, trial)}{tried}{holdout_message(status)}")
    early = left_out(observed.spec, status)
    why = _why_best(observed, status.trials, best)
    found = f"Of {_how_many(observed, status)}, FineTuneJob {best.fine_tune_job_name!r} {why}"
    return ready(Reason.SUCCEEDED, f"{found}{holdout_message(status)}{early}")


def _how_many(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> str:
    """How many trials there were, and of how many combinations where the budget left some out."""
    begun, search, most = len(status.trials), observed.spec.search, observed.spec.budget.trials
    lost = f" ({failures(status)} failed)" if failures(status) >= observed.spec.budget.failures else ""
    possible = None if search is None else combinations(search)
    if possible is None or begun >= possible or begun < most:
        return f"{begun} trials{lost}"
    return f"{begun} trials{lost} (of {possible} combinations; budget.trials is {most})"


def _why_best(observed: ObservedFineTuneSweep, trials: Sequence[TrialStatus], best: BestTrial) -> str:
    measured = observed.spec.measured
    if measured is None:
        return f"has the lowest validation loss, {best.score:.5g}."
    first = next(iter(by_score(trials, observed.spec.sign)), None)
    score = f"{best.score:.4g}{interval(best.low, best.high)}"
    if first is not None and best.number != first.number:
        return (
            f"has the score {score} from grader {measured.grader!r}. It took less time to train than the one with the "
            f"best score, {first.fine_tune_job_name!r} with {first.score:.4g}, and their intervals overlap."
        )
    tied = ", ".join(map(str, best.tied_with or []))
    several = f" The intervals of trials {tied} overlap with it."
    others = "" if not tied else several if "," in tied else f" The interval of trial {tied} overlaps with it."
    extreme = "highest" if measured.goal == "Maximize" else "lowest"
    return f"has the {extreme} score from grader {measured.grader!r}, {score}.{others}"
