"""What has become of the trials, which of them are pruned, and which ones begin.

A trial is written into the status before its job is created, so an operator that starts after a crash creates the job
with the same values. While the API server refuses a job (a quota, an admission webhook), the other trials go on, and
those that are not refused begin. Ends that come within ten seconds are written together, as a job's progress is.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness, known_reason, progressing, stalled, suspended
from finetune_operator.core.plan import earliest
from finetune_operator.finetunesweep.holdout import holdout_readiness, is_pending, missing_evaluation
from finetune_operator.finetunesweep.objects import cancelled, trial_evaluation, trial_job
from finetune_operator.finetunesweep.objects import suspended as suspended_job
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision, SweepPlan
from finetune_operator.finetunesweep.trials import (
    counted,
    ended,
    ended_in_order,
    has_room,
    may_begin,
    most_trials,
    pruned,
    replaced,
    running,
    with_end,
    with_next_trials,
    with_rungs,
)

RECORD_INTERVAL = timedelta(seconds=10)
"""A status write costs as much as any other of a trial's own: ends that come close together share one."""


def record_trials(observed: ObservedFineTuneSweep, plan: SweepPlan, now: datetime) -> SweepPlan:
    """Record which trials have ended, in their order, with the one that follows each; then prune."""
    spec, status, jobs, accelerators = observed.spec, plan.status, observed.jobs, observed.accelerators
    if isinstance(accelerators, Readiness):
        if not spec.cancel:
            return plan  # What a trial has used is recorded with its end, for good: not before it can be counted.
        accelerators = None  # Nothing follows that they would limit.
    if _next_record(observed, status, now) is not None:
        return plan
    seen = [(trial, jobs[trial.fine_tune_job_name]) for trial in running(status) if trial.fine_tune_job_name in jobs]
    status = replaced(status, *(with_rungs(spec, trial, job) for trial, job in seen))
    for trial in ended_in_order(status, jobs):
        status = with_end(spec, status, trial, jobs[trial.fine_tune_job_name], accelerators)
        status = _with_next(observed, status).model_copy(update={"recorded_time": whole_seconds(now)})
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


def refuse(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Start nothing with a template that can't have what is searched, or whose accelerators can't be counted."""
    refusal = observed.refusal
    if refusal is None and isinstance(observed.accelerators, Readiness):
        refusal = observed.accelerators
    if refusal is None:
        return None
    return _going_on(observed, status, replace(refusal, message=_of_template(refusal.message)), now)


def suspend(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision | None:
    """Suspend the trials while spec.suspend is true, and start none."""
    if not observed.spec.suspend:
        return None
    busy = [trial.fine_tune_job_name for trial in running(status) if _is_busy(observed, trial.fine_tune_job_name)]
    if observed.holdout is not None and is_pending(observed.spec, status) and observed.holdout.phase != "Suspended":
        message = f"spec.suspend is true. Waiting for Evaluation {observed.holdout.evaluation_name!r} to stop."
        return _going_on(observed, status, progressing(Reason.STOPPING, message), now)
    if not busy:
        return _going_on(observed, status, suspended(_suspended_trials(status)), now)
    message = f"spec.suspend is true. Waiting for {len(busy)} trials to save a checkpoint, among them {busy[0]!r}."
    return _going_on(observed, status, progressing(Reason.STOPPING, message), now)


def _suspended_trials(status: FineTuneSweepStatus) -> str:
    """Those that the sweep counts as running have saved, and wait."""
    if not (waiting := len(running(status))):
        return " No trial starts."
    trials = "1 trial that has begun is" if waiting == 1 else f"{waiting} trials that have begun are"
    return f" {trials} suspended too, and no other starts."


def search(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> SweepDecision:
    """Start the trials that may begin, and wait for those that run."""
    is_last = not running(status) and not may_begin(observed.spec, status)
    if is_last and is_pending(observed.spec, status):
        return _going_on(observed, status, holdout_readiness(observed, status), now)
    status = _with_next(observed, status)
    ended_by_now = {trial.fine_tune_job_name for trial in ended_in_order(status, observed.jobs)}
    names = [trial.fine_tune_job_name for trial in running(status)]
    alive = [observed.jobs.get(name) for name in names if name not in ended_by_now]
    stuck = [job for job in alive if job is not None and job.is_stalled]
    readiness = progressing(
        Reason.SEARCHING, f"At most {most_trials(observed.spec, status)} trials, {observed.spec.width} at a time."
    )
    if stuck and len(stuck) == len(alive):
        message = f"Every trial that runs is Stalled. {_of_template(stuck[0].message)}"
        readiness = stalled(known_reason(stuck[0].reason), message)
    return _going_on(observed, status, readiness, now)


def _of_template(message: str) -> str:
    """What is said of a trial's class, with the field of the sweep that sets it."""
    return message.replace("spec.className", "spec.template.spec.className")


def _next_record(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> datetime | None:
    """Until when ends wait to be recorded together with others; None: what there is is recorded now."""
    spec, jobs = observed.spec, observed.jobs
    alive, done = running(status), ended_in_order(status, jobs)
    if not done or len(done) == len(alive) or status.recorded_time is None or spec.suspend or spec.cancel:
        return None
    seen = [(one, jobs[one.fine_tune_job_name]) for one in alive if one not in done and one.fine_tune_job_name in jobs]
    if any(with_rungs(spec, trial, job) != trial for trial, job in seen):
        return None  # The next evaluation would take the place of this one.
    due = status.recorded_time + RECORD_INTERVAL
    return due if now < due <= now + RECORD_INTERVAL else None


def _may_start(observed: ObservedFineTuneSweep) -> bool:
    is_ended = observed.spec.suspend or observed.spec.cancel
    return observed.refusal is None and not isinstance(observed.accelerators, Readiness) and not is_ended


def _with_next(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> FineTuneSweepStatus:
    return with_next_trials(observed.owner, observed.spec, status) if _may_start(observed) else status


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
        if job is not None and job.may_be_changed and job.is_suspended != suspend
    ]
    final = observed.holdout
    if final is not None and is_pending(observed.spec, status) and final.is_suspended != suspend:
        merge.append(suspended_job(observed.owner, "", final, suspend=suspend))
    bodies = [trial_job(observed.owner, observed.spec, trial) for trial in missing]
    measured = observed.spec.measured
    if measured is not None and not suspend:
        trained = [trial for trial, job in alive if job is not None and not job.may_be_changed]
        number = status.run_number
        bodies += [trial_evaluation(observed.owner, observed.spec, measured, trial, number) for trial in trained]
        bodies += missing_evaluation(observed, status)
    known = observed.status
    is_changed = bool(merge) or (status.run_id, status.trials, status.holdout) != (
        known.run_id,
        known.trials,
        known.holdout,
    )
    more = now if _may_start(observed) and has_room(observed.spec, status) else None
    waiting = sum(job is not None and job.phase == "Suspended" for _, job in alive)
    status = counted(observed.spec, status, suspended=waiting if suspend else 0)
    return SweepDecision(
        status,
        readiness,
        create=[] if is_changed else bodies,
        creates_each=True,
        merge=merge,
        requeue_at=earliest([more, _next_record(observed, status, now)]),
        if_refused=status if bodies else None,
        create_recorded=bodies if is_changed else [],
    )


def _is_busy(observed: ObservedFineTuneSweep, name: str) -> bool:
    job = observed.jobs.get(name)
    return job is not None and job.may_be_changed and job.phase != "Suspended"


def _has_trained(observed: ObservedFineTuneSweep, name: str) -> bool:
    job = observed.jobs.get(name)
    return job is not None and job.has_trained
