"""Which trials begin, or why none may."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import known_reason, progressing, stalled
from finetune_operator.finetunesweep.holdout import holdout_readiness, is_pending
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision
from finetune_operator.finetunesweep.running_trials import continue_search, why_refused, with_next
from finetune_operator.finetunesweep.trials import (
    accelerator_hours_are_used_up,
    ended_in_order,
    may_begin,
    most_trials,
    running,
    used_by_running,
)


def refuse(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Start nothing with a template that can't have what is searched, or whose accelerators can't be counted."""
    refusal = why_refused(observed)
    if refusal is None:
        return None
    return continue_search(observed, status, replace(refusal, message=_of_template(refusal.message)), now)


def search(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision:
    """Start the trials that may begin, and wait for those that run."""
    is_last = not running(status) and not may_begin(observed.spec, status)
    if is_last and is_pending(observed.spec, status):
        return continue_search(observed, status, holdout_readiness(observed, status), now)
    status = with_next(observed, status)
    ended_by_now = {trial.fine_tune_job_name for trial in ended_in_order(status, observed.jobs)}
    names = [trial.fine_tune_job_name for trial in running(status)]
    alive = [observed.jobs.get(name) for name in names if name not in ended_by_now]
    stuck = [job for job in alive if job is not None and job.is_stalled]
    message = f"At most {most_trials(observed.spec, status)} trials, {observed.spec.width} at a time."
    if accelerator_hours_are_used_up(observed.spec, status, used_by_running(observed, status)):
        message = "By what those that run have used or will need, another trial would exceed budget.acceleratorHours."
    readiness = progressing(Reason.SEARCHING, message)
    if stuck and len(stuck) == len(alive):
        message = f"Every trial that runs is Stalled. {_of_template(stuck[0].message)}"
        readiness = stalled(known_reason(stuck[0].reason), message)
    return continue_search(observed, status, readiness, now)


def _of_template(message: str) -> str:
    """What is said of a trial's class, with the field of the sweep that sets it."""
    return message.replace("spec.className", "spec.template.spec.className")
