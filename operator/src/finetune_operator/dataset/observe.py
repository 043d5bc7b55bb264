"""Reads everything that the plan of a Dataset depends on, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import owner_of
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.refusal import spec_refusal
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe_class
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.models.observe import resolve_dataset, resolve_endpoint
from finetune_operator.pods.observe import jobs_and_pods, observe_warnings
from finetune_operator.pods.observed import job_view, parse_time, pod_view, status_written


async def observe(reader: Reader, parent: Object, *, environment: Environment) -> ObservedDataset:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError."""
    owner = owner_of(parent)
    spec, status = spec_of(DatasetSpec, parent), status_of(DatasetStatus, parent)
    reference = None if spec.generate is None else spec.generate.prompts.dataset_ref
    is_recorded = status.retry_time is not None or status.completion_time is not None
    running = [] if status.job_name is None or is_recorded else [status.job_name]
    is_over = status.run_id == spec.run_id and status.completion_time is not None
    # The Job of a finished run is never replaced, so it is not looked up live if it is missing.
    newest = None if is_over and spec.ttl_seconds_after_finished is None else status.job_name
    found_jobs, found_pods, disowned = await jobs_and_pods(reader, owner, newest, running=running)
    jobs, pods = [job_view(item) for item in found_jobs], [pod_view(item) for item in found_pods]
    # A run that started with the default class keeps it, even if the default has changed.
    in_flight = status.run_id == spec.run_id and status.completion_time is None
    class_name = spec.class_name or (status.class_name if in_flight else None)
    class_ = await observe_class(reader, class_name, environment.trainer_image)
    return ObservedDataset(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        class_=class_,
        classifier=await _classifier(reader, owner.namespace, spec, class_),
        endpoints=await _endpoints(reader, owner.namespace, spec, class_),
        prompts=None if reference is None else await resolve_dataset(reader, owner.namespace, reference),
        # Schemas of graders are untrusted and may take long to check: other objects must not wait for them.
        refusal=await asyncio.to_thread(spec_refusal, owner.name, spec),
        created=parse_time(parent["metadata"]["creationTimestamp"]),
        status_written=status_written(parent),
        jobs=tuple(jobs),
        pods=tuple(pods),
        disowned=tuple(job_view(item) for item in disowned),
        warnings=await observe_warnings(reader, owner.namespace, jobs, pods, datetime.now(UTC)),
    )


async def _classifier(
    reader: Reader, namespace: str, spec: DatasetSpec, class_: ResolvedClass | Readiness
) -> EndpointConfig | Readiness | None:
    """The model that spec.screening asks; None if it asks none."""
    screening = spec.screening
    if screening is None or screening.classifier is None or isinstance(class_, Readiness):
        return None
    return await resolve_endpoint(reader, namespace, class_, screening.classifier.model, "spec.screening asks")


async def _endpoints(
    reader: Reader, namespace: str, spec: DatasetSpec, class_: ResolvedClass | Readiness
) -> tuple[EndpointConfig | Readiness, ...]:
    """The endpoints of the teacher and of graders, each once; none without a class."""
    generate = spec.generate
    if generate is None or isinstance(class_, Readiness):
        return ()
    asked_by: dict[str, str] = {}
    if generate.teacher.endpoint is not None:
        asked_by[generate.teacher.endpoint.name] = "spec.generate.teacher is"
    for grader in generate.graders:
        if grader.asks is not None:
            asked_by.setdefault(grader.asks, f"Grader {grader.name!r} asks")
    return tuple([await resolve_endpoint(reader, namespace, class_, name, place) for name, place in asked_by.items()])
