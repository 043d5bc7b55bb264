"""What has become of the trials, and which of them are pruned."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetunesweep.objects import cancelled
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepPlan
from finetune_operator.finetunesweep.running_trials import next_record, with_next
from finetune_operator.finetunesweep.trials import (
    ended,
    ended_in_order,
    pruned,
    replaced,
    running,
    with_end,
    with_rungs,
)


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
    lost = [one for one in pruned(spec, status) if not _has_trained(observed, one.fine_tune_job_name)]
    status = replaced(
        status, *(ended(trial, jobs.get(trial.fine_tune_job_name), accelerators, "Pruned") for trial in lost)
    )
    ending = [
        cancelled(observed.owner, one.fine_tune_job_name, jobs[one.fine_tune_job_name])
        for one in lost
        if one.fine_tune_job_name in jobs
    ]
    return replace(plan, status=status, merge=(*plan.merge, *ending))


def _has_trained(observed: ObservedFineTuneSweep, name: str) -> bool:
    job = observed.jobs.get(name)
    return job is not None and job.has_trained
