"""Whether the FineTuneClass (spec.limits, spec.sources, spec.accelerator) allows the job to create Pods now.

limits.acceleratorHoursPerMonth is the budget of the namespace; the job's usage of it is counted here, too.

The class is checked before preflight and before each attempt; a change of it does not affect running Pods.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import accounted
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetunejob.allowed_class import class_or_refusal, over_budget
from finetune_operator.finetunejob.attempt_state import JobDecision, JobPlan
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.stale_jobs import stale_jobs
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_class(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing while the class does not allow the job."""
    found = class_or_refusal(observed)
    if not isinstance(found, Readiness):
        return None
    # A change of a ModelDeployment that the class refers to does not wake this object.
    waits = found.reason in (Reason.WAITING_FOR_MODEL, Reason.REFERENCE_NOT_FOUND)
    again = now + timedelta(seconds=START_CHECK_SECONDS) if waits else None
    return JobDecision(status, found, delete=stale_jobs(observed), requeue_at=again)


def wait_for_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start no attempt while the namespace's accelerator hours of this month are used up."""
    refused = over_budget(observed, status)
    if refused is None:
        return None
    return JobDecision(status, refused.readiness, delete=stale_jobs(observed), requeue_at=refused.renews)


def count_usage(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Add the usage since the last reconciliation to status.usage and to the ledger of the namespace's budget."""
    is_behind = observed.server_times.proves_clock_slow(now)
    return accounted(plan, observed.budget, observed.owner, observed.status, now, clock_is_behind=is_behind)
