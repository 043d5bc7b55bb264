"""spec.suspend and spec.cancel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.finetunesweep.ends import cancelled_sweep, end_sweep
from finetune_operator.finetunesweep.holdout import is_pending
from finetune_operator.finetunesweep.objects import cancelled
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision, TrialJob
from finetune_operator.finetunesweep.running_trials import continue_search
from finetune_operator.finetunesweep.trials import ENDED, counted, running


def suspend(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Suspend the trials while spec.suspend is true, and start none."""
    if not observed.spec.suspend:
        return None
    busy = {name: job for name, job in _changeable(observed, status).items() if job.phase not in (*ENDED, "Suspended")}
    if not busy:
        return continue_search(observed, status, suspended(_suspended_trials(status)), now)
    return continue_search(
        observed, status, progressing(Reason.STOPPING, f"spec.suspend is true. {_awaited(busy)}"), now
    )


def _suspended_trials(status: FineTuneSweepStatus) -> str:
    """Those that the sweep counts as running have saved, and wait."""
    if not (waiting := len(running(status))):
        return " No trial starts."
    trials = "1 trial that has begun is" if waiting == 1 else f"{waiting} trials that have begun are"
    return f" {trials} suspended too, and no other starts."


def cancel(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """End all trials for good, and then the sweep."""
    if not observed.spec.cancel:
        return None
    busy = {name: job for name, job in _changeable(observed, status).items() if job.phase not in ENDED}
    if not busy:
        return end_sweep(observed, status, cancelled_sweep(), now)
    return SweepDecision(
        counted(observed.spec, status, is_over=True),
        progressing(Reason.STOPPING, f"spec.cancel is true. {_awaited(busy)}"),
        merge=[cancelled(observed.owner, name, job) for name, job in busy.items() if not job.is_cancelled],
    )


def _changeable(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> dict[str, TrialJob]:
    """What may still run: the trials, by the names of their FineTuneJobs, and the Evaluation of the best."""
    found = {trial.fine_tune_job_name: observed.jobs.get(trial.fine_tune_job_name) for trial in running(status)}
    if observed.holdout is not None and is_pending(observed.spec, status):
        found[observed.holdout.evaluation_name or ""] = observed.holdout
    return {name: job for name, job in found.items() if job is not None and job.may_be_changed}


def _awaited(busy: Mapping[str, TrialJob]) -> str:
    """What has not stopped yet; of one that does not stop, why."""
    name, job = next(((name, job) for name, job in busy.items() if job.is_stalled), next(iter(busy.items())))
    kind = "trial" if job.evaluation_name is None else "Evaluation"
    one = f"{kind} {job.evaluation_name or name!r}"
    awaited = one if len(busy) == 1 else f"{len(busy)} trials, among them {one},"
    why = f" It is Stalled: {job.message}" if job.is_stalled else ""
    return f"Waiting for {awaited} to save and stop.{why}"
