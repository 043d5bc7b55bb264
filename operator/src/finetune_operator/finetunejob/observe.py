"""Reads everything that the plan of a FineTuneJob depends on, once.

Its preflight is a Pod without a Job; in earlier releases it was a Job, which is read as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_grading.rewards import reward_problem
from finetune_operator.budgets.observe import observe_budget
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import Owner, owner_of
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe_class, observe_classes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    newest_job,
    preflight_succeeded,
    running_attempt,
    running_jobs,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.storage_folders import folder_classes, known_folders
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.models.observe import resolve_datasets, resolve_endpoint, resolve_model
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observe import is_alone, job_by_name, observe_warnings, owned_jobs_and_pods, pod_by_name
from finetune_operator.pods.observed import (
    JobView,
    alone_view,
    cached_job_view,
    cached_pod_view,
    parse_time,
    status_written,
)


@dataclass(frozen=True)
class Children:
    """`jobs`: its Jobs, and the Pods that run without one; `pods`: all to wait for, those of disowned Jobs included.

    `disowned`: created for it, but no longer its own. They run on, and their results don't count.
    """

    jobs: tuple[JobView, ...] = ()
    pods: tuple[Object, ...] = ()
    disowned: tuple[JobView, ...] = ()


async def observe(reader: Reader, parent: Object, *, environment: Environment) -> ObservedFineTuneJob:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError."""
    owner = owner_of(parent)
    spec = spec_of(FineTuneJobSpec, parent)
    status = status_of(FineTuneJobStatus, parent)
    class_name = spec.class_name or pinned_class(spec, status)
    others = folder_classes(known_folders(owner, status)) - {class_name}
    # One after the other: all of it is in memory as a rule, and a task of its own costs more than such a read.
    class_ = await observe_class(reader, class_name, environment.trainer_image)
    classes = await observe_classes(reader, others, environment.trainer_image)
    model = await _observe_model(reader, owner, spec, status)
    children = await _children(reader, owner, parent, spec, status)
    pods = tuple(cached_pod_view(item) for item in children.pods)
    warnings = await observe_warnings(reader, owner.namespace, children.jobs, pods, datetime.now(UTC))
    budget = await observe_budget(reader, environment.namespace, owner, class_, status, children.pods)
    attempt, progress = status.attempt.job_name if status.attempt else "", environment.progress
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
        teacher=await _observe_teacher(reader, owner, spec, status),
        datasets=await _observe_datasets(reader, owner, spec, status),
        reward_refusal=await refusal_before_start(spec, status),
        classifier=await observe_classifier(reader, owner.namespace, spec, status, class_),
        jobs=children.jobs,
        pods=pods,
        disowned=children.disowned,
        warnings=warnings,
        progress=shown.progress if shown else None,
        checkpoint_report=shown.checkpoint_report if shown else None,
        newer_report_time=None if newer_in is None else datetime.now(UTC) + timedelta(seconds=newer_in),
        budget=budget,
        progress_endpoint=environment.progress_endpoint,
    )


async def refusal_before_start(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> Readiness | None:
    """Why the run can't begin. Once it has, its spec stays the same, and is not checked again at each event."""
    has_begun = status.run_id == spec.run_id and (status.preflight is not None or status.phase in FINISHED)
    if spec.method.rft is None or has_begun:
        return None
    # Schemas are untrusted and may take long to check: other objects must not wait for them.
    problem = await asyncio.to_thread(reward_problem, spec.method.rft)
    return None if problem is None else stalled(Reason.INVALID_SPEC, problem)


async def observe_classifier(
    reader: Reader, namespace: str, spec: FineTuneJobSpec, status: FineTuneJobStatus, class_: ResolvedClass | Readiness
) -> EndpointConfig | Readiness | None:
    """The model that dataset.screening asks in preflight; None where nothing asks it any more."""
    screening = spec.dataset.screening
    is_over = status.run_id == spec.run_id and (preflight_succeeded(status) or status.phase in FINISHED)
    if screening is None or screening.classifier is None or isinstance(class_, Readiness) or is_over:
        return None
    return await resolve_endpoint(reader, namespace, class_, screening.classifier.model, "dataset.screening asks")


async def observe_children(
    reader: Reader, owner: Owner, newest: str | None, *controllers: str, running: Collection[str] = ()
) -> Children:
    """Read them. `newest`: the name of the newest one, by which it is found without labels too (jobs_and_pods).

    That one is missing from the cache is no proof that it is gone: it is looked up by its name.
    """
    jobs, pods = await owned_jobs_and_pods(reader, owner, *controllers, running=running)
    alone = [pod for pod in pods if is_alone(pod, owner)]
    disowned: list[JobView] = []
    if newest is not None and all(item["metadata"]["name"] != newest for item in (*jobs, *alone)):
        hidden, strangers = await pod_by_name(reader, owner, newest)
        more_jobs, theirs, lost = await job_by_name(reader, owner, newest, *controllers)
        jobs, alone, pods = [*jobs, *more_jobs], [*alone, *hidden], [*pods, *hidden, *strangers, *theirs]
        disowned = [*map(cached_job_view, lost), *map(alone_view, strangers)]
    return Children((*map(cached_job_view, jobs), *map(alone_view, alone)), tuple(pods), tuple(disowned))


def pinned_class(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> str | None:
    """The class with which the unfinished run started: its data is stored there, even if the default has changed."""
    in_flight = status.run_id == spec.run_id and status.phase not in FINISHED
    return status.class_name if in_flight else None


async def _children(
    reader: Reader, owner: Owner, parent: Object, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> Children:
    """Its children. Without a status nothing has been created yet."""
    if not parent.get("status"):
        return Children()
    # The Job of a finished run is never replaced, so it is not looked up live if it is missing.
    is_over = status.run_id == spec.run_id and status.phase in FINISHED and spec.ttl_seconds_after_finished is None
    newest = None if is_over else newest_job(status)
    return await observe_children(reader, owner, newest, running=running_jobs(status))


async def _observe_model(
    reader: Reader, owner: Owner, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> ResolvedModel | Readiness | None:
    is_known = status.run_id == spec.run_id and status.starting_model is not None
    if spec.model.fine_tune_job_ref is None or is_known:
        return None
    return await resolve_model(reader, owner.namespace, spec.model)


async def _observe_teacher(
    reader: Reader, owner: Owner, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> ResolvedModel | Readiness | None:
    is_known = status.run_id == spec.run_id and status.teacher is not None
    if spec.method.distillation is None or is_known:
        return None
    return await resolve_model(reader, owner.namespace, spec.method.distillation.teacher)


async def _observe_datasets(
    reader: Reader, owner: Owner, spec: FineTuneJobSpec, status: FineTuneJobStatus
) -> dict[str, PinnedRevision | Readiness]:
    if status.run_id == spec.run_id and status.dataset_revisions is not None:
        return {}
    references: dict[str, DatasetRef] = {str(name): one for name, one in spec.dataset.references().items()}
    return await resolve_datasets(reader, owner.namespace, references)
