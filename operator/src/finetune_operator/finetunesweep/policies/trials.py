"""What has become of the trials, which of them are pruned, and which ones begin.

A trial is written into the status first, and its job is created by the reconciliation after that. So the values of a
job never depend on what an operator that was killed had in mind. And a job is created by a reconciliation that has
nothing else to write, since the API server may refuse it (a quota, an admission webhook): the other trials go on, and
those that are not refused begin.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness, known_reason, progressing, stalled, suspended
from finetune_operator.finetunesweep.objects import cancelled, trial_job
from finetune_operator.finetunesweep.objects import suspended as suspended_job
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision, SweepPlan
from finetune_operator.finetunesweep.trials import (
    counted,
    ended,
    ended_in_order,
    most_trials,
    pruned,
    replaced,
    running,
    with_end,
    with_next_trials,
    with_rungs,
)


def record_trials(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Record which trials have ended, in their order, with the one that follows each; then prune."""
    spec, status, jobs, accelerators = observed.spec, plan.status, observed.jobs, observed.accelerators
    if isinstance(accelerators, Readiness):
        if not spec.cancel:
            return plan  # What a trial has used is recorded with its end, for good: not before it can be counted.
        accelerators = None  # Nothing follows that they would limit.
    seen = [(trial, jobs[trial.fine_tune_job_name]) for trial in running(status) if trial.fine_tune_job_name in jobs]
    status = replaced(status, *(with_rungs(spec, trial, job) for trial, job in seen))
    for trial in ended_in_order(status, jobs):
        status = with_end(spec, status, trial, jobs[trial.fine_tune_job_name], accelerators)
        status = _with_next(observed, status)
    lost = pruned(spec, status)
    status = replaced(
        status, *(ended(trial, jobs.get(trial.fine_tune_job_name), accelerators, "Pruned") for trial in lost)
    )
    ending = [
        cancelled(observed.owner, one.fine_tune_job_name, jobs[one.fine_tune_job_name])
        for one in lost
        if one.fine_tune_job_name in jobs
    ]
    return replace(plan, status=status, merge=(*plan.merge, *ending))


def refuse(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Start nothing with a template that can't have what is searched, or whose accelerators can't be counted."""
    refusal = observed.refusal
    if refusal is None and isinstance(observed.accelerators, Readiness):
        refusal = observed.accelerators
    return None if refusal is None else _going_on(observed, status, refusal, now)


def suspend(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Suspend the trials while spec.suspend is true, and start none."""
    if not observed.spec.suspend:
        return None
    busy = [trial.fine_tune_job_name for trial in running(status) if _is_busy(observed, trial.fine_tune_job_name)]
    if not busy:
        return _going_on(observed, status, suspended(" No trial starts."), now)
    message = f"spec.suspend is true. Waiting for {len(busy)} trials to save a checkpoint, among them {busy[0]!r}."
    return _going_on(observed, status, progressing(Reason.STOPPING, message), now)


def search(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision:
    """Start the trials that may begin, and wait for those that run."""
    status = _with_next(observed, status)
    alive = [observed.jobs.get(trial.fine_tune_job_name) for trial in running(status)]
    stuck = [job for job in alive if job is not None and job.is_stalled]
    readiness = progressing(
        Reason.SEARCHING, f"At most {most_trials(observed.spec)} trials, {observed.spec.parallel} at a time."
    )
    if stuck and len(stuck) == len(alive):
        readiness = stalled(known_reason(stuck[0].reason), f"Every trial that runs is Stalled. {stuck[0].message}")
    return _going_on(observed, status, readiness, now)


def _with_next(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> FineTuneSweepStatus:
    may_start = observed.refusal is None and not isinstance(observed.accelerators, Readiness)
    if observed.spec.suspend or observed.spec.cancel or not may_start:
        return status
    return with_next_trials(observed.owner, observed.spec, status)


def _going_on(
    observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, readiness: Readiness, now: datetime
) -> SweepDecision:
    """The trials are suspended or resumed as the sweep is, and created once all that is known of others is written."""
    suspend = observed.spec.suspend
    alive = [(trial, observed.jobs.get(trial.fine_tune_job_name)) for trial in running(status)]
    missing = [] if suspend else [trial for trial, job in alive if job is None]
    merge = [
        suspended_job(observed.owner, trial.fine_tune_job_name, job, suspend=suspend)
        for trial, job in alive
        if job is not None and job.is_suspended != suspend
    ]
    is_first = bool(merge) or (status.run_id, status.trials) != (observed.status.run_id, observed.status.trials)
    status = counted(observed.spec, status)
    return SweepDecision(
        status,
        readiness,
        create=[] if is_first else [trial_job(observed.owner, observed.spec, trial) for trial in missing],
        creates_each=True,
        merge=merge,
        requeue_at=now if is_first and missing else None,
        if_refused=status.model_copy(update={"phase": "Running"}) if missing else None,
    )


def _is_busy(observed: ObservedFineTuneSweep, name: str) -> bool:
    job = observed.jobs.get(name)
    return job is not None and job.phase != "Suspended"
