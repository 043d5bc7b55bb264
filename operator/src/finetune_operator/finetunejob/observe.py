"""Everything that the plan of a FineTuneJob looks at, read once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Progress
from finetune_api.progress import CheckpointLedger
from finetune_operator.budgets.ledger import ObservedBudget, observe_budget
from finetune_operator.core.conditions import Standing
from finetune_operator.core.ownership import Owner, owner_of
from finetune_operator.finetuneclass.resolve import ResolvedClass, observe_class
from finetune_operator.finetunejob.attempt_records import newest_job
from finetune_operator.finetunejob.objects import TRAIN_ROLE
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import Object
from finetune_operator.models.resolve import ResolvedModel, resolve_model
from finetune_operator.pods.observe import disowned_job_and_pods, owned_jobs_and_pods
from finetune_operator.pods.observed import JobView, PodView, job_view, pod_view
from finetune_operator.pods.warning_events import WarningEvent, observe_warnings
from finetune_operator.progress.server import ProgressEndpoint, ProgressStore


@dataclass(frozen=True)
class ObservedFineTuneJob:
    """The parent, its class, its Jobs and Pods with the warnings about them, its reports and its namespace's budget."""

    owner: Owner
    generation: int
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    platform: ResolvedClass | Standing
    model: ResolvedModel | Standing | None = None
    """What spec.model.fineTuneJobRef means now; None where there is none, or the run has started from it already."""
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    disowned: tuple[JobView, ...] = ()
    """A Job that was made for it and is not its own any more. Its Pods are among `pods`, to be waited for."""
    warnings: tuple[WarningEvent, ...] = ()
    progress: Progress | None = None
    ledger: CheckpointLedger | None = None
    budget: ObservedBudget | None = None
    progress_endpoint: ProgressEndpoint | None = None

    def job(self, name: str) -> JobView | None:
        """The Job of this name."""
        return next((job for job in self.jobs if job.name == name), None)

    def pods_of(self, job_name: str) -> tuple[PodView, ...]:
        """The Pods of the Job of this name."""
        found = self.job(job_name)
        return () if found is None else tuple(pod for pod in self.pods if pod.job_uid == found.uid)


async def observe(
    kube: Kube,
    parent: Object,
    *,
    trainer_image: str | None,
    progress: ProgressStore,
    endpoint: ProgressEndpoint | None,
    ledger_namespace: str,
) -> ObservedFineTuneJob:
    """Read everything. Raises pydantic.ValidationError when the spec does not parse, UnreadableStatusError."""
    owner = owner_of(parent)
    spec = FineTuneJobSpec.from_wire(parent["spec"])
    status = FineTuneJobStatus.read(parent.get("status"))
    platform, model, (found_jobs, found_pods, disowned) = await asyncio.gather(
        observe_class(kube, spec.class_name, trainer_image),
        _observe_model(kube, owner, spec, status),
        _children(kube, owner, parent, status),
    )
    jobs = tuple(job_view(item) for item in found_jobs)
    pods = tuple(pod_view(item) for item in found_pods)
    training = [item for item, view in zip(found_pods, pods, strict=True) if view.role == TRAIN_ROLE]
    warnings, budget = await asyncio.gather(
        observe_warnings(kube, owner.namespace, jobs, pods, datetime.now(UTC)),
        observe_budget(kube, ledger_namespace, owner, platform, status, training),
    )
    shown = progress.shown(owner.namespace, status.attempt.job_name) if status.attempt else None
    return ObservedFineTuneJob(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        platform=platform,
        model=model,
        jobs=jobs,
        pods=pods,
        disowned=tuple(job_view(item) for item in disowned),
        warnings=warnings,
        progress=shown.progress if shown else None,
        ledger=shown.ledger if shown else None,
        budget=budget,
        progress_endpoint=endpoint,
    )


async def _children(
    kube: Kube, owner: Owner, parent: Object, status: FineTuneJobStatus
) -> tuple[list[Object], list[Object], list[Object]]:
    """Its Jobs, Pods, and Jobs no longer its own. One without a status has none, or those about to be made."""
    if not parent.get("status"):
        return [], [], []
    jobs, pods = await owned_jobs_and_pods(kube, owner)
    disowned, theirs = await disowned_job_and_pods(kube, owner, newest_job(status), jobs)
    return jobs, pods + theirs, disowned


async def _observe_model(
    kube: Kube, owner: Owner, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> ResolvedModel | Standing | None:
    is_known = status.run_id == spec.run_id and status.starting_model is not None
    if spec.model.fine_tune_job_ref is None or is_known:
        return None
    return await resolve_model(kube, owner.namespace, spec.model)
