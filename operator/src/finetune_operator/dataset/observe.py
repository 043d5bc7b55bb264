"""Reads everything that the plan of a Dataset depends on, once."""

from __future__ import annotations

import asyncio

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.refusal import spec_refusal
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.models.observe import resolve_dataset, resolve_endpoint
from finetune_operator.retried_run.observe import observe_run


async def observe(reader: Reader, parent: Object, *, environment: Environment) -> ObservedDataset:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError."""
    spec, status = spec_of(DatasetSpec, parent), status_of(DatasetStatus, parent)
    reference = None if spec.generate is None else spec.generate.prompts.dataset_ref
    run = await observe_run(reader, parent, spec, status, environment)
    namespace = run.owner.namespace
    return ObservedDataset(
        **vars(run),
        classifier=await _classifier(reader, namespace, spec, run.class_),
        endpoints=await _endpoints(reader, namespace, spec, run.class_),
        prompts=None if reference is None else await resolve_dataset(reader, namespace, reference),
        # Schemas of graders are untrusted and may take long to check: other objects must not wait for them.
        refusal=await asyncio.to_thread(spec_refusal, run.owner.name, spec),
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
