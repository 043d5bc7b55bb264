"""What has become of the trials, and which of them are pruned.

A trial is pruned in the status first, and its job is cancelled by the next plan.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunesweep import TrialStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetunesweep.objects import cancelled
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan
from finetune_operator.finetunesweep.running_trials import next_record, with_next
from finetune_operator.finetunesweep.trials import (
    STOPPING,
    ended,
    ended_in_order,
    has_failed,
    have_stopped,
    pruned,
    replaced,
    running,
    stopping,
    to_be_cancelled,
    with_end,
    with_rungs,
)


def cancel_pruned(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Cancel the jobs of the trials that the status has as pruned."""
    merge = [cancelled(observed.owner, name, job) for name, job in to_be_cancelled(observed, plan.status).items()]
    return replace(plan, merge=(*plan.merge, *merge))


def record_trials(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Record which trials have ended, in their order, with the one that follows each; then prune."""
    spec, status, jobs, accelerators = observed.spec, plan.status, observed.jobs, observed.accelerators
    if isinstance(accelerators, Readiness):
        if not spec.cancel:
            return plan  # What a trial has used is recorded with its end, for good: not before it can be counted.
        accelerators = None  # Nothing follows that they would limit.
    if next_record(observed, status, now) is not None:
        return plan
    seen = [(trial, jobs[trial.fine_tune_job_name]) for trial in running(status) if trial.fine_tune_job_name in jobs]
    status = replaced(status, *(with_rungs(spec, trial, job) for trial, job in seen))
    for trial in ended_in_order(status, jobs):
        status = with_end(spec, status, trial, jobs[trial.fine_tune_job_name], accelerators)
        status = with_next(observed, status).model_copy(update={"recorded_time": whole_seconds(now)})
    is_over = spec.cancel or has_failed(spec, status)  # All that run are cancelled then.
    lost = [] if is_over else [one for one in pruned(spec, status) if not _has_trained(observed, one)]
    status = replaced(
        status,
        *(ended(one, jobs.get(one.fine_tune_job_name), accelerators, "Pruned", reason=STOPPING) for one in lost),
    )
    if status.trials != plan.status.trials:
        # That a job has stopped is written together with whatever is: it changes nothing by itself.
        going = to_be_cancelled(observed, plan.status)
        over = [trial for trial in stopping(plan.status) if trial.fine_tune_job_name not in going]
        status = replaced(status, *have_stopped(*over))
    return replace(plan, status=status)


def _has_trained(observed: ObservedFineTuneSweep, trial: TrialStatus) -> bool:
    job = observed.jobs.get(trial.fine_tune_job_name)
    return job is not None and job.has_trained
