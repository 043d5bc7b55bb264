"""A sweep that is not over: its trials follow spec.suspend, and missing ones are created.

A trial is written into the status before its job is created, so an operator that starts after a crash creates the job
with the same values. While the API server refuses a job (a quota, an admission webhook), the other trials go on, and
those that are not refused begin. Ends that come within ten seconds are written together, as a job's progress is.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.plan import earliest
from finetune_operator.finetunesweep.holdout import is_pending, missing_evaluation
from finetune_operator.finetunesweep.objects import suspended as suspended_job
from finetune_operator.finetunesweep.objects import trial_evaluation, trial_job
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, SweepDecision
from finetune_operator.finetunesweep.trials import (
    HOUR_SECONDS,
    are_pruned_now,
    counted,
    ended_in_order,
    has_room,
    running,
    to_be_cancelled,
    used_by_running,
    with_next_trials,
    with_rungs,
)

RECORD_INTERVAL = timedelta(seconds=10)
"""A status write costs as much as any other of a trial's own: ends that come close together share one."""


def continue_search(
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
    is_measured = final is not None and final.may_be_changed and is_pending(observed.spec, status)
    if final is not None and is_measured and final.is_suspended != suspend:
        merge.append(suspended_job(observed.owner, "", final, suspend=suspend))
    bodies = [trial_job(observed.owner, observed.spec, trial) for trial in missing]
    measured = observed.spec.measured
    if measured is not None and not suspend:
        trained = [trial for trial, job in alive if job is not None and job.has_trained and job.evaluation_name is None]
        number = status.run_number
        bodies += [trial_evaluation(observed.owner, observed.spec, measured, trial, number) for trial in trained]
        bodies += missing_evaluation(observed, status)
    known = observed.status
    # While one creation is refused, nothing of its plan is written but the status.
    is_changed = bool(merge or to_be_cancelled(observed, known)) or (status.run_id, status.trials, status.holdout) != (
        known.run_id,
        known.trials,
        known.holdout,
    )
    more = now if are_pruned_now(status, known) or (may_start(observed) and has_room(observed, status)) else None
    waiting = sum(job is not None and job.phase == "Suspended" for _, job in alive)
    used = used_by_running(observed, status)
    status = counted(observed.spec, status, suspended=waiting if suspend else 0, used=used)
    return SweepDecision(
        status,
        readiness,
        create=[] if is_changed else bodies,
        creates_each=True,
        merge=merge,
        requeue_at=earliest([more, next_record(observed, status, now)]),
        if_refused=status if bodies else None,
        create_recorded=bodies if is_changed else [],
    )


def next_record(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus, now: datetime) -> datetime | None:
    """Until when ends wait to be recorded together with others; None: what there is is recorded now."""
    spec, jobs = observed.spec, observed.jobs
    alive, done = running(status), ended_in_order(status, jobs)
    since = status.recorded_time or status.start_time
    if not done or len(done) == len(alive) or since is None or spec.suspend or spec.cancel:
        return None
    seen = [(one, jobs[one.fine_tune_job_name]) for one in alive if one not in done and one.fine_tune_job_name in jobs]
    if any(with_rungs(spec, trial, job) != trial for trial, job in seen):
        return None  # The next evaluation would take the place of this one.
    due = since + RECORD_INTERVAL
    return due if now < due <= now + RECORD_INTERVAL else None


def may_start(observed: ObservedFineTuneSweep) -> bool:
    is_ended = observed.spec.suspend or observed.spec.cancel
    return why_refused(observed) is None and not is_ended


def why_refused(observed: ObservedFineTuneSweep) -> Readiness | None:
    """Why no trial may start: the spec can't be had, or hours are limited and can't be counted or are too few."""
    if observed.refusal is not None:
        return observed.refusal
    if isinstance(observed.accelerators, Readiness):
        return observed.accelerators
    is_new = observed.status.run_id != observed.spec.run_id or not observed.status.trials
    return _hours_refusal(observed.spec, observed.accelerators) if is_new else None


def with_next(observed: ObservedFineTuneSweep, status: FineTuneSweepStatus) -> FineTuneSweepStatus:
    return with_next_trials(observed, status) if may_start(observed) else status


def _hours_refusal(spec: FineTuneSweepSpec, accelerators: int | None) -> Readiness | None:
    """Why not even one trial may begin; how long it may take is known only with a deadline."""
    limit, deadline = spec.budget.accelerator_hours, spec.template.spec.active_deadline_seconds
    if limit is None or deadline is None or not accelerators or accelerators * deadline <= limit * HOUR_SECONDS:
        return None
    hours = accelerators * deadline / HOUR_SECONDS
    message = (
        f"spec.budget.acceleratorHours is {limit:g}, but one trial may take {hours:.3g}: accelerators ({accelerators}) "
        f"multiplied by template.spec.activeDeadlineSeconds ({deadline}). Raise it, or set a shorter deadline and "
        "another spec.runId."
    )
    return stalled(Reason.INVALID_SPEC, message)
