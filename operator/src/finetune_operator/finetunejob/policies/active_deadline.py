"""spec.activeDeadlineSeconds: how long a run may take, but for the time that its clock stands still.

It stands still while nothing can run by no fault of the job's: while it is suspended, while it waits for another job's
result to start from, while its Job waits in a queue for quota, and while its namespace's budget is used up. It stands
still, too, while the spec is refused and nothing runs: a spec that is set back finds the run as it was.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import LONGEST_SECONDS, whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.plan import earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobDecision,
    JobPlan,
    run_failed,
    running_attempt,
    running_jobs,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.class_limits import over_budget
from finetune_operator.finetunejob.policies.retry import last_failure_message
from finetune_operator.finetunejob.policies.run import is_superseded, run_id_refusal, waits_for_model
from finetune_operator.finetunejob.policies.wrong_clock import clock_is_behind


def count_suspended_time(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Write down since when the clock stands still, or for how long it did, unless our own clock can't tell."""
    status = plan.status
    stands_still, since = _stands_still(observed, status), status.suspend_time
    if stands_still == (since is not None):
        return plan
    if since is None:
        return replace(plan, status=status.model_copy(update={"suspend_time": whole_seconds(now)}))
    if clock_is_behind(observed, now):
        return plan
    since = max(since, status.start_time or since)
    seconds = status.suspended_seconds + max(0, round((now - since).total_seconds()))
    update = {"suspend_time": None, "suspended_seconds": seconds}
    return replace(plan, status=status.model_copy(update=update))


def fail_refused_run_at_deadline(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """End a run whose spec is refused when its time is over: what runs goes on, but no longer than it may."""
    return None if run_id_refusal(observed, status) is None else fail_at_active_deadline(observed, status, now)


def fail_at_active_deadline(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """End the run when its time is over."""
    deadline = _deadline(observed, status)
    if deadline is None or now < deadline:
        return None
    kept = f" Its checkpoints are kept in {status.storage_uri}." if status.storage_uri else ""
    message = (
        f"The run did not end within activeDeadlineSeconds.{last_failure_message(status)}{kept} Raise "
        "activeDeadlineSeconds and change runId to run again."
    )
    return run_failed(status, Reason.DEADLINE_EXCEEDED, message, now)


def wake_at_deadline(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Look again when the run's time is over, if it is to go on until then."""
    status = plan.status
    if status.phase in FINISHED or is_superseded(observed, status):
        return plan
    return replace(plan, requeue_at=earliest([plan.requeue_at, _deadline(observed, status)]))


def deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """The spec's deadline as it is now, and at most the class's; the class's alone where the spec is another run's."""
    of_spec = observed.spec.active_deadline_seconds if status.run_id == observed.spec.run_id else None
    limits = [of_spec, class_deadline_seconds(observed, status)]
    return min((seconds for seconds in limits if seconds is not None), default=None)


def class_deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """What the class allows; a running attempt keeps what it allowed when the attempt was started."""
    attempt = running_attempt(status)
    if attempt is not None:
        return attempt.class_deadline_seconds
    class_ = observed.class_
    return class_.spec.limits.active_deadline_seconds if isinstance(class_, ResolvedClass) else None


def _deadline(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> datetime | None:
    """When the run's time is over; None where nobody limits it, or its clock stands still."""
    seconds = deadline_seconds(observed, status)
    if seconds is None or status.start_time is None or status.suspend_time is not None:
        return None
    return status.start_time + timedelta(seconds=min(max(0, seconds + status.suspended_seconds), 2 * LONGEST_SECONDS))


def _stands_still(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    if observed.spec.suspend or waits_for_model(observed, status) or over_budget(observed, status) is not None:
        return True
    if run_id_refusal(observed, status) is not None and not _runs(observed, status):
        return True
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    return job is not None and job.suspended


def _runs(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether an attempt or the preflight runs. What it ended with is not taken while the spec is refused."""
    jobs = [observed.job(name) for name in running_jobs(status)]
    return any(job is not None and job.state == "Active" for job in jobs)
