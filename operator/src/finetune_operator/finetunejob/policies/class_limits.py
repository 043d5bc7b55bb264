"""Whether the FineTuneClass (spec.limits, spec.sources, spec.accelerator) allows the job to create Pods now.

limits.acceleratorHoursPerMonth is the budget of the namespace; the job's usage of it is counted here, too.

The class is checked before preflight and before each attempt; a change of it does not affect running Pods.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import BudgetViolation, accounted, budget_violation
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.resolve import ResolvedClass, deadline_violation, source_violation
from finetune_operator.finetunejob.attempt_state import JobDecision, JobPlan, running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_id_hint import with_run_id_hint
from finetune_operator.finetunejob.stale_jobs import stale_jobs


def wait_for_class(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing while the class does not allow the job."""
    found = class_or_refusal(observed)
    return JobDecision(status, found, delete=stale_jobs(observed)) if isinstance(found, Readiness) else None


def wait_for_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start no attempt while the namespace's accelerator hours of this month are used up."""
    refused = over_budget(observed, status)
    if refused is None:
        return None
    return JobDecision(status, refused.readiness, delete=stale_jobs(observed), requeue_at=refused.renews)


def over_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> BudgetViolation | None:
    """Why the budget does not allow the next attempt; None if it does, or if none is about to start."""
    class_, passed = observed.class_, status.preflight is not None and status.preflight.succeeded
    if isinstance(class_, Readiness) or not passed or running_attempt(status) is not None:
        return None
    return budget_violation(observed.budget, observed.owner, class_)


def count_usage(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Add the usage since the last reconciliation to status.usage and to the ledger of the namespace's budget."""
    is_behind = observed.server_times.proves_clock_slow(now)
    return accounted(plan, observed.budget, observed.owner, observed.status, now, clock_is_behind=is_behind)


def allowed_class(observed: ObservedFineTuneJob) -> ResolvedClass:
    """The class to create Pods with, after wait_for_class has passed."""
    found = class_or_refusal(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides otherwise"
    return found


def class_or_refusal(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    """The class to create Pods with, or why it does not allow them."""
    found = _class_or_refusal(observed)
    return with_run_id_hint(found) if isinstance(found, Readiness) else found


def _class_or_refusal(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    class_ = observed.class_
    if isinstance(class_, Readiness):
        return class_
    return (
        observed.refusal
        or _nodes_exceeded(observed, class_)
        or deadline_violation(class_, observed.spec.active_deadline_seconds)
        or _accelerator_missing(observed, class_)
        or _source_not_allowed(observed, class_)
        or class_
    )


def _nodes_exceeded(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    nodes, limit = observed.spec.parallelism.nodes, class_.spec.limits.nodes
    if nodes <= limit:
        return None
    return stalled(Reason.LIMIT_EXCEEDED, class_.exceeded("spec.parallelism.nodes", nodes, "nodes", limit))


def _accelerator_missing(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    if observed.spec.adapter.type != "QLoRA" or class_.spec.accelerator is not None:
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.adapter.type QLoRA computes in 4 bits on an accelerator, and FineTuneClass {class_.name!r} has none. "
        "Use LoRA, or a class with spec.accelerator.",
    )


def _source_not_allowed(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    """Folders and globs are checked literally here; the trainer checks each file that they expand to."""
    dataset = observed.spec.dataset
    sources = [source for source in (dataset.training, dataset.validation) if source is not None]
    uris = [uri for source in sources for uri in (source.uri, *(source.uris or [])) if uri is not None]
    model = observed.spec.model.uri  # None for the result of a job, whose own model was checked then.
    return source_violation(class_.spec, models=[model] if model else [], datasets=uris)
