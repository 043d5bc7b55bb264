"""What the FineTuneClass allows (spec.limits, spec.sources, spec.accelerator): whether the job may make Pods now.

It is asked before preflight and before each attempt: a change of it leaves what runs alone.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.resolve import ResolvedClass, source_violation
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision
from finetune_operator.finetunejob.policies.run.run_id import with_run_id_hint
from finetune_operator.finetunejob.stopping import stale_jobs


def wait_for_class(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing that the class does not allow."""
    found = admitted_class(observed)
    return JobDecision(status, found, delete=stale_jobs(observed)) if isinstance(found, Readiness) else None


def permitted_class(observed: ObservedFineTuneJob) -> ResolvedClass:
    """The class by which Pods are made, once nothing waits for it any more."""
    found = admitted_class(observed)
    assert isinstance(found, ResolvedClass), "wait_for_class decides before"
    return found


def admitted_class(observed: ObservedFineTuneJob) -> ResolvedClass | Readiness:
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
