"""limits.acceleratorHoursPerMonth of the class: the namespace's budget, and what the job has used of it."""

from __future__ import annotations

from datetime import datetime

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import BudgetViolation, accounted, budget_violation
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetunejob.attempt_state import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision, JobPlan
from finetune_operator.finetunejob.stopping import stale_jobs


def wait_for_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start no attempt while the namespace's accelerator hours of this month are used up."""
    refused = over_budget(observed, status)
    if refused is None:
        return None
    return JobDecision(status, refused.readiness, delete=stale_jobs(observed), requeue_at=refused.renews)


def over_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> BudgetViolation | None:
    """Why the next attempt may not start, where one is to start."""
    platform, passed = observed.platform, status.preflight is not None and status.preflight.succeeded
    if isinstance(platform, Readiness) or not passed or running_attempt(status) is not None:
        return None
    return budget_violation(observed.budget, observed.owner, platform)


def count_usage(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Count what ran since the last look, in status.usage and in the ledger of the namespace's budget."""
    return accounted(plan, observed.budget, observed.owner, observed.status, now)
