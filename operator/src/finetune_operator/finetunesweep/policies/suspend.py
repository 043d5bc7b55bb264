"""spec.suspend and spec.cancel."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.finetunesweep.ends import cancelled_sweep, end_sweep
from finetune_operator.finetunesweep.holdout import is_pending
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision
from finetune_operator.finetunesweep.running_trials import go_on
from finetune_operator.finetunesweep.trials import running


def suspend(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Suspend the trials while spec.suspend is true, and start none."""
    if not observed.spec.suspend:
        return None
    busy = [trial.fine_tune_job_name for trial in running(status) if _is_busy(observed, trial.fine_tune_job_name)]
    if observed.holdout is not None and is_pending(observed.spec, status) and observed.holdout.phase != "Suspended":
        message = f"spec.suspend is true. Waiting for Evaluation {observed.holdout.evaluation_name!r} to stop."
        return go_on(observed, status, progressing(Reason.STOPPING, message), now)
    if not busy:
        return go_on(observed, status, suspended(_suspended_trials(status)), now)
    awaited = f"trial {busy[0]!r}" if len(busy) == 1 else f"{len(busy)} trials"
    among = "" if len(busy) == 1 else f", among them {busy[0]!r}"
    message = f"spec.suspend is true. Waiting for {awaited} to save a checkpoint{among}."
    return go_on(observed, status, progressing(Reason.STOPPING, message), now)


def _suspended_trials(status: FineTuneSweepStatus) -> str:
    """Those that the sweep counts as running have saved, and wait."""
    if not (waiting := len(running(status))):
        return " No trial starts."
    trials = "1 trial that has begun is" if waiting == 1 else f"{waiting} trials that have begun are"
    return f" {trials} suspended too, and no other starts."


def _is_busy(observed: ObservedFineTuneSweep, name: str) -> bool:
    job = observed.jobs.get(name)
    return job is not None and job.may_be_changed and job.phase != "Suspended"


def cancel(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """End the sweep, and all trials, for good."""
    return end_sweep(observed, status, cancelled_sweep(), now) if observed.spec.cancel else None
