"""Reads everything that the plan of a FineTuneJob depends on, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.budgets.observe import observe_budget
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner, owner_of
from finetune_operator.finetuneclass.observe import observe_class, observe_classes
from finetune_operator.finetunejob.attempt_state import FINISHED, newest_job, running_attempt, running_jobs
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.storage_folders import folder_classes, known_folders
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.models.observe import resolve_model
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observe import jobs_and_pods, observe_warnings
from finetune_operator.pods.observed import job_view, parse_time, pod_view, status_written
from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.progress.store import ProgressStore


async def observe(
    reader: Reader,
    parent: Object,
    *,
    trainer_image: str | None,
    progress: ProgressStore,
    endpoint: ProgressEndpoint | None,
    ledger_namespace: str,
) -> ObservedFineTuneJob:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError."""
    owner = owner_of(parent)
    spec = FineTuneJobSpec.from_storage(parent["spec"])
    status = FineTuneJobStatus.read(parent.get("status"))
    class_name = spec.class_name or pinned_class(spec, status)
    others = folder_classes(known_folders(owner, status)) - {class_name}
    class_, classes, model, (found_jobs, found_pods, disowned) = await asyncio.gather(
        observe_class(reader, class_name, trainer_image),
        observe_classes(reader, others, trainer_image),
        _observe_model(reader, owner, spec, status),
        _children(reader, owner, parent, spec, status),
    )
    jobs = tuple(job_view(item) for item in found_jobs)
    pods = tuple(pod_view(item) for item in found_pods)
    warnings, budget = await asyncio.gather(
        observe_warnings(reader, owner.namespace, jobs, pods, datetime.now(UTC)),
        observe_budget(reader, ledger_namespace, owner, class_, status, found_pods),
    )
    attempt = status.attempt.job_name if status.attempt else ""
    shown = progress.shown(owner.namespace, attempt, is_running=running_attempt(status) is not None)
    newer_in = progress.seconds_until_newer(owner.namespace, attempt)
    return ObservedFineTuneJob(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        class_=class_,
        folder_classes=tuple(classes.values()),
        created=parse_time(parent["metadata"]["creationTimestamp"]),
        status_written=status_written(parent),
        model=model,
        jobs=jobs,
        pods=pods,
        disowned=tuple(job_view(item) for item in disowned),
        warnings=warnings,
        progress=shown.progress if shown else None,
        checkpoint_report=shown.checkpoint_report if shown else None,
        newer_report_time=None if newer_in is None else datetime.now(UTC) + timedelta(seconds=newer_in),
        budget=budget,
        progress_endpoint=endpoint,
    )


def pinned_class(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> str | None:
    """The class with which the unfinished run started: its data is stored there, even if the default has changed."""
    in_flight = status.run_id == spec.run_id and status.phase not in FINISHED
    return status.class_name if in_flight else None


async def _children(
    reader: Reader, owner: Owner, parent: Object, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> tuple[list[Object], list[Object], list[Object]]:
    """Its Jobs, its Pods, and Jobs that it no longer owns. Without a status nothing has been created yet."""
    if not parent.get("status"):
        return [], [], []
    # The Job of a finished run is never replaced, so it is not looked up live if it is missing.
    is_over = status.run_id == spec.run_id and status.phase in FINISHED and spec.ttl_seconds_after_finished is None
    newest = None if is_over else newest_job(status)
    return await jobs_and_pods(reader, owner, newest, running=running_jobs(status))


async def _observe_model(
    reader: Reader, owner: Owner, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> ResolvedModel | Readiness | None:
    is_known = status.run_id == spec.run_id and status.starting_model is not None
    if spec.model.fine_tune_job_ref is None or is_known:
        return None
    return await resolve_model(reader, owner.namespace, spec.model)
