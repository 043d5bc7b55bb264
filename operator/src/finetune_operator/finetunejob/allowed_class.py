"""Which FineTuneClass the job's Pods get, or why none may be created now, and whether only a new spec.runId helps."""

from __future__ import annotations

from dataclasses import replace

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.budgets.ledger import BudgetViolation, budget_violation
from finetune_operator.core.conditions import Readiness, sentence, stalled
from finetune_operator.finetuneclass.resolve import (
    ResolvedClass,
    deadline_violation,
    nodes_violation,
    source_violation,
)
from finetune_operator.finetunejob.attempt_state import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob

_RUN_ID_HINT = "Changing the spec requires a new runId."
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
"""Reasons that a change of the spec may fix, which the API server rejects within a run."""


def class_or_refusal(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    """The class to create Pods with, or why it does not allow them."""
    found = _class_or_refusal(observed)
    return with_run_id_hint(found) if isinstance(found, Readiness) else found


def allowed_class(observed: ObservedFineTuneJob) -> ResolvedClass:
    """The class to create Pods with, after wait_for_class has passed."""
    found = class_or_refusal(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides otherwise"
    return found


def class_deadline_seconds(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> int | None:
    """The class's deadline; a running attempt keeps the one with which it was started."""
    attempt = running_attempt(status)
    if attempt is not None:
        return attempt.class_deadline_seconds
    class_ = observed.class_
    return class_.spec.limits.active_deadline_seconds if isinstance(class_, ResolvedClass) else None


def over_budget(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> BudgetViolation | None:
    """Why the budget does not allow the next attempt; None if it does, or if none is about to start."""
    class_, passed = observed.class_, status.preflight is not None and status.preflight.succeeded
    if isinstance(class_, Readiness) or not passed or running_attempt(status) is not None:
        return None
    return budget_violation(observed.budget, observed.owner, class_)


def with_run_id_hint(readiness: Readiness) -> Readiness:
    """Add to the message that a change of the spec requires a new runId, if such a change may help."""
    if readiness.reason not in _OF_THE_SPEC or _RUN_ID_HINT in readiness.message:
        return readiness
    return replace(readiness, message=f"{sentence(readiness.message)} {_RUN_ID_HINT}")


def _class_or_refusal(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
    class_ = observed.class_
    if isinstance(class_, Readiness):
        return class_
    return (
        observed.reward_refusal
        or nodes_violation(class_, "spec.parallelism.nodes", observed.spec.parallelism.nodes)
        or deadline_violation(class_, observed.spec.active_deadline_seconds)
        or _accelerator_missing(observed, class_)
        or _too_few_accelerators(observed, class_)
        or _source_not_allowed(observed, class_)
        or (observed.classifier if isinstance(observed.classifier, Readiness) else None)
        or class_
    )


def _accelerator_missing(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    if observed.spec.adapter.type != "QLoRA" or class_.spec.accelerator is not None:
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.adapter.type QLoRA computes in 4 bits on an accelerator, and FineTuneClass {class_.name!r} has none. "
        "Use LoRA, or a class with spec.accelerator.",
    )


def _too_few_accelerators(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    """Preflight warns of the contrary, accelerators that no process uses."""
    asked, accelerator = observed.spec.parallelism.processes_per_node, class_.spec.accelerator
    if accelerator is None or asked <= accelerator.count_per_node:
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.parallelism.processesPerNode is {asked}, and each process needs an accelerator of its own: the Pods of "
        f"FineTuneClass {class_.name!r} have {accelerator.count_per_node} (accelerator.countPerNode). Use at most as "
        "many processes, or more nodes.",
    )


def _source_not_allowed(observed: ObservedFineTuneJob, class_: ResolvedClass) -> Readiness | None:
    """Folders and globs are checked literally here; the trainer checks each file that they expand to."""
    dataset = observed.spec.dataset
    sources = [source for source in (dataset.training, dataset.validation) if source is not None]
    uris = [uri for source in sources for uri in (source.uri, *(source.uris or [])) if uri is not None]
    distillation = observed.spec.method.distillation
    # Without a URI it is the result of a job, whose own model was checked then.
    models = [observed.spec.model.uri, None if distillation is None else distillation.teacher.uri]
    return source_violation(class_.spec, models=[uri for uri in models if uri], datasets=uris)
