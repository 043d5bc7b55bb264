"""The class's limits: whether the job may make Pods now, and the accelerator time that it has used of the budget.

The class is asked before preflight (but for the budget) and before each attempt: a change of it leaves what runs alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import BudgetViolation, accounted, budget_violation
from finetune_operator.core.conditions import Readiness, sentence, stalled
from finetune_operator.finetuneclass.resolve import ResolvedClass, source_violation
from finetune_operator.finetunejob.attempt_state import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import JobPlan

_OF_THE_SPEC = frozenset(
    {
        Reason.CLASS_NOT_FOUND,
        Reason.DATASET_NOT_FOUND,
        Reason.INVALID_SPEC,
        Reason.LIMIT_EXCEEDED,
        Reason.MODEL_INVALID,
        Reason.MODEL_NOT_FOUND,
        Reason.SOURCE_NOT_ALLOWED,
    }
)
"""What a change of the spec may mend, which the API server refuses within a run."""


def with_run_id_hint(readiness: Readiness) -> Readiness:
    """The readiness of a run that another spec may help: its message says that such a change takes another runId."""
    if readiness.reason not in _OF_THE_SPEC:
        return readiness
    message = f"{sentence(readiness.message)} A change of the spec needs another runId."
    return replace(readiness, message=message)


def admitted(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    """The class to make Pods with, or why none may be made."""
    found = _admitted(observed)
    return with_run_id_hint(found) if isinstance(found, Readiness) else found


def _admitted(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    platform = observed.platform
    if isinstance(platform, Readiness):
        return platform
    return (
        _nodes_exceeded(observed, platform)
        or _deadline_exceeded(observed, platform)
        or _accelerator_missing(observed, platform)
        or _source_not_allowed(observed, platform)
        or platform
    )


def over_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> BudgetViolation | None:
    """Why the next attempt may not start, where one is to start."""
    platform, passed = observed.platform, status.preflight is not None and status.preflight.succeeded
    if isinstance(platform, Readiness) or not passed or running_attempt(status) is not None:
        return None
    return budget_violation(observed.budget, observed.owner, platform)


def count_usage(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Count what ran since the last look, in status.usage and in the ledger of the namespace's budget."""
    return accounted(plan, observed.budget, observed.owner, observed.status, now)


def _nodes_exceeded(observed: ObservedFineTuneJob, platform: ResolvedClass) -> Readiness | None:
    nodes, limit = observed.spec.parallelism.nodes, platform.spec.limits.nodes
    if nodes <= limit:
        return None
    return stalled(
        Reason.LIMIT_EXCEEDED,
        f"spec.parallelism.nodes is {nodes}; FineTuneClass {platform.name!r} allows {limit}.",
    )


def _deadline_exceeded(observed: ObservedFineTuneJob, platform: ResolvedClass) -> Readiness | None:
    asked, limit = observed.spec.active_deadline_seconds, platform.spec.limits.active_deadline_seconds
    if limit is None or asked is None or asked <= limit:
        return None
    return stalled(
        Reason.LIMIT_EXCEEDED,
        f"spec.activeDeadlineSeconds is {asked}; FineTuneClass {platform.name!r} allows {limit}.",
    )


def _accelerator_missing(observed: ObservedFineTuneJob, platform: ResolvedClass) -> Readiness | None:
    if observed.spec.adapter.type != "QLoRA" or platform.spec.accelerator is not None:
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.adapter.type QLoRA computes in 4 bits on an accelerator, and FineTuneClass {platform.name!r} has none. "
        "Use LoRA, or a class with spec.accelerator.",
    )


def _source_not_allowed(observed: ObservedFineTuneJob, platform: ResolvedClass) -> Readiness | None:
    """Folders and globs are checked as they are written; the trainer checks again each file that they bring."""
    dataset = observed.spec.dataset
    sources = [source for source in (dataset.training, dataset.validation) if source is not None]
    uris = [uri for source in sources for uri in (source.uri, *(source.uris or [])) if uri is not None]
    model = observed.spec.model.uri  # None: the result of a job, whose own model was asked about
    return source_violation(platform.spec, models=[model] if model else [], datasets=uris)
