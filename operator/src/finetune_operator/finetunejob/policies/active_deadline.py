"""spec.activeDeadlineSeconds: how long a run may take, not counting the time while its clock is stopped.

The clock is stopped while nothing can run through no fault of the job: while it is suspended, while it waits for the
result of the job from which it starts, while its Job is queued for quota, and while its namespace's budget is used up.
It is also stopped while the spec is rejected and nothing runs, so that reverting the spec restores the run.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, EndedAttempt, FineTuneJobStatus
from finetune_api.pod_contracts.progress import human_duration
from finetune_operator.core.active_deadline import deadline_of, shorter, with_suspended_time
from finetune_operator.core.plan import earliest
from finetune_operator.finetunejob.allowed_class import class_deadline_seconds, over_budget
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobDecision,
    JobPlan,
    running_attempt,
    running_jobs,
)
from finetune_operator.finetunejob.ends import last_failure_message, run_failed
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import is_superseded, run_id_refusal, waits_for_another


def count_suspended_time(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record since when the clock is stopped, or for how long it was, unless the operator's own clock is wrong."""
    is_stopped = _clock_is_stopped(observed, plan.status)
    is_reliable = not observed.server_times.proves_clock_slow(now)
    status = with_suspended_time(plan.status, now, is_stopped=is_stopped, is_reliable=is_reliable)
    return plan if status is plan.status else replace(plan, status=status)


def fail_refused_run_at_deadline(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """End a run with a rejected spec at its deadline: running Pods continue, but not for longer than allowed."""
    return None if run_id_refusal(observed, status) is None else fail_at_active_deadline(observed, status, now)


def fail_at_active_deadline(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """End the run at its deadline."""
    deadline = _deadline(observed, status)
    if deadline is None or now < deadline:
        return None
    message = (
        f"The run did not end within {_limit(observed, status)}.{_before_training(status)}"
        f"{last_failure_message(status)}{_kept(status)} Raise activeDeadlineSeconds and change runId to run again."
    )
    return run_failed(status, Reason.DEADLINE_EXCEEDED, message, now)


def _limit(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> str:
    """The deadline, and whose it is."""
    seconds = deadline_seconds(observed, status)
    is_class = seconds == class_deadline_seconds(observed, status)
    whose = "limits.activeDeadlineSeconds of the FineTuneClass" if is_class else "spec.activeDeadlineSeconds"
    return f"{human_duration(seconds or 0)} ({whose})"


def _before_training(status: FineTuneJobStatus) -> str:
    """What of the time had passed before the first attempt, with a leading space; empty where that is not known."""
    if status.attempt is None:
        return " Training had not begun."
    known: list[AttemptStatus | EndedAttempt] = [*status.ended_attempts, status.attempt]
    began = next((one.start_time for one in known if one.number == 1), None)
    # A run that stood still spent that time on nothing.
    if began is None or status.start_time is None or status.suspended_seconds:
        return ""
    return f" Preflight took {human_duration(max(0, round((began - status.start_time).total_seconds())))} of it."


def _kept(status: FineTuneJobStatus) -> str:
    if status.checkpoints:
        return f" Its checkpoints are kept in {status.storage_uri}."
    return " No checkpoint had been saved."


def wake_at_deadline(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Requeue at the run's deadline, unless it ends before."""
    status = plan.status
    if status.phase in FINISHED or is_superseded(observed, status):
        return plan
    return replace(plan, requeue_at=earliest([plan.requeue_at, _deadline(observed, status)]))


def deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """The shorter of the spec's current deadline and the class's; only the class's if the spec is for another run."""
    spec_seconds = observed.spec.active_deadline_seconds if status.run_id == observed.spec.run_id else None
    return shorter(spec_seconds, class_deadline_seconds(observed, status))


def _deadline(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> datetime | None:
    return deadline_of(status, deadline_seconds(observed, status))


def _clock_is_stopped(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    if observed.spec.suspend or waits_for_another(observed, status) or over_budget(observed, status) is not None:
        return True
    if run_id_refusal(observed, status) is not None and not _has_active_job(observed, status):
        return True
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    return job is not None and job.suspended


def _has_active_job(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether an attempt or the preflight is running. While the spec is rejected, their results are not recorded."""
    jobs = [observed.job(name) for name in running_jobs(status)]
    return any(job is not None and job.state == "Active" for job in jobs)
