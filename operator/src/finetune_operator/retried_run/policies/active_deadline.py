"""spec.activeDeadlineSeconds: how long a run may take, not counting the time while its clock is stopped.

The clock is stopped while nothing can run through no fault of the run: while it is suspended, while its Job is queued
for quota, and while no try may start because its class or something else that it needs is missing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_operator.core.active_deadline import deadline_of, limit_of, shorter, with_suspended_time
from finetune_operator.core.conditions import Readiness, failed, failure_message
from finetune_operator.core.plan import Decision, Plan, earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.retried_run.current_try import current_job
from finetune_operator.retried_run.ends import fail_run
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def count_suspended_time(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, plan: Plan[Status], now: datetime
) -> Plan[Status]:
    """Record since when the clock is stopped, or for how long it was."""
    if plan.status.start_time is None or plan.status.completion_time is not None:
        return plan
    is_reliable = not observed.server_times.proves_clock_slow(now)
    is_stopped = _clock_is_stopped(run, observed)
    status = with_suspended_time(plan.status, now, is_stopped=is_stopped, is_reliable=is_reliable)
    return plan if status is plan.status else replace(plan, status=status)


def fail_at_active_deadline(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """End the run at its deadline."""
    deadline = _deadline(run, observed, status)
    if deadline is None or now < deadline:
        return None
    last = f" The last failure: {failure_message(status.failure)}" if status.failure is not None else ""
    limit = limit_of(observed.spec.active_deadline_seconds, _class_seconds(observed))
    again = f"Raise activeDeadlineSeconds and change runId to run again{run.reused and f': {run.reused}'}."
    message = f"The run did not end within {limit}.{last} {again}"
    return fail_run(run, observed, status, failed(Reason.DEADLINE_EXCEEDED, message), now, at_once=True)


def wake_at_deadline(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, plan: Plan[Status], now: datetime
) -> Plan[Status]:
    """Requeue at the run's deadline, unless it ends before."""
    if plan.status.completion_time is not None:
        return plan
    return replace(plan, requeue_at=earliest([plan.requeue_at, _deadline(run, observed, plan.status)]))


def _clock_is_stopped(run: RetriedRun[ObservedT, Status], observed: ObservedT) -> bool:
    if observed.spec.suspend:
        return True
    job = current_job(run, observed)
    if job is not None:
        return job.suspended
    return isinstance(run.class_or_refusal(observed), Readiness) or run.missing(observed) is not None


def _deadline(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status) -> datetime | None:
    """The run's deadline, by the spec or its class; None of a run that the spec does not ask for any more."""
    if not run.is_same_run(observed):
        return None
    return deadline_of(status, shorter(observed.spec.active_deadline_seconds, _class_seconds(observed)))


def _class_seconds(observed: ObservedT) -> int | None:
    class_ = observed.class_
    return class_.spec.limits.active_deadline_seconds if isinstance(class_, ResolvedClass) else None
