"""spec.activeDeadlineSeconds: how long a run may take, not counting the time while its clock is stopped.

The clock is stopped while the run is suspended, and while the class allows no try.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.active_deadline import deadline_of, limit_of, shorter, with_suspended_time
from finetune_operator.core.conditions import Readiness, failed, failure_message
from finetune_operator.core.plan import earliest
from finetune_operator.dataset.allowed_class import class_or_refusal
from finetune_operator.dataset.current_job import current_job, is_same_run
from finetune_operator.dataset.ends import fail_run
from finetune_operator.dataset.observed import DatasetDecision, DatasetPlan, ObservedDataset
from finetune_operator.finetuneclass.resolve import ResolvedClass


def count_suspended_time(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Record since when the clock is stopped, or for how long it was."""
    if plan.status.start_time is None or plan.status.completion_time is not None:
        return plan
    is_reliable = not observed.server_times.proves_clock_slow(now)
    is_stopped = observed.spec.suspend or (
        current_job(observed) is None and isinstance(class_or_refusal(observed), Readiness)
    )
    status = with_suspended_time(plan.status, now, is_stopped=is_stopped, is_reliable=is_reliable)
    return plan if status is plan.status else replace(plan, status=status)


def fail_at_active_deadline(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """End the run at its deadline."""
    deadline = _deadline(observed, status)
    if deadline is None or now < deadline:
        return None
    last = f" The last failure: {failure_message(status.failure)}" if status.failure is not None else ""
    limit = limit_of(observed.spec.active_deadline_seconds, _class_seconds(observed))
    message = f"The run did not end within {limit}.{last} Raise activeDeadlineSeconds and change runId to run again."
    return fail_run(observed, status, failed(Reason.DEADLINE_EXCEEDED, message), now, at_once=True)


def wake_at_deadline(observed: ObservedDataset, plan: DatasetPlan, now: datetime) -> DatasetPlan:
    """Requeue at the run's deadline, unless it ends before."""
    if plan.status.completion_time is not None:
        return plan
    return replace(plan, requeue_at=earliest([plan.requeue_at, _deadline(observed, plan.status)]))


def _deadline(observed: ObservedDataset, status: DatasetStatus) -> datetime | None:
    """The run's deadline, by the spec or its class; None of a run that the spec does not ask for any more."""
    if not is_same_run(observed):
        return None
    return deadline_of(status, shorter(observed.spec.active_deadline_seconds, _class_seconds(observed)))


def _class_seconds(observed: ObservedDataset) -> int | None:
    class_ = observed.class_
    return class_.spec.limits.active_deadline_seconds if isinstance(class_, ResolvedClass) else None
