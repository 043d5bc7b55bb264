"""The end of a sweep, and of the trials that still run."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness, cancelled
from finetune_operator.finetunesweep.holdout import is_pending
from finetune_operator.finetunesweep.objects import cancelled as cancelled_job
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision
from finetune_operator.finetunesweep.trials import (
    counted,
    ended,
    have_stopped,
    replaced,
    running,
    stopping,
)


def end_sweep(
    observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, end: Readiness, now: datetime
) -> SweepDecision:
    accelerators = observed.accelerators if isinstance(observed.accelerators, int) else None
    alive = [(trial, observed.jobs.get(trial.fine_tune_job_name)) for trial in running(status)]
    over = [ended(trial, job, accelerators, "Cancelled") for trial, job in alive]
    status = replaced(status, *over, *have_stopped(*stopping(status)))  # those are cancelled by this very plan
    status = counted(observed.spec, status, is_over=True)
    final = observed.holdout
    unmeasured = [final] if final is not None and final.may_be_cancelled and is_pending(observed.spec, status) else []
    return SweepDecision(
        status.model_copy(update={"completion_time": whole_seconds(now)}),
        end,
        merge=[
            cancelled_job(observed.owner, trial.fine_tune_job_name, job)
            for trial, job in alive
            if job is not None and job.may_be_changed
        ]
        + [cancelled_job(observed.owner, "", job) for job in unmeasured],
    )


def cancelled_sweep() -> Readiness:
    return cancelled(" What its trials have saved stays.")
