"""Reads everything that the plan of an Evaluation depends on, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from finetune_api.evaluation import Candidate, EvaluatedModel, EvaluationSpec, EvaluationStatus
from finetune_api.evaluation.models import ALL
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness
from finetune_operator.environment import Environment
from finetune_operator.evaluation.candidates import checkpoint_name
from finetune_operator.evaluation.observed import Answering, ObservedEvaluation
from finetune_operator.evaluation.refusal import grading_refusal
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import Object
from finetune_operator.models.observe import resolve_checkpoints, resolve_dataset, resolve_endpoint, resolve_model
from finetune_operator.retried_run.observe import observe_run


async def observe(reader: Reader, parent: Object, *, environment: Environment) -> ObservedEvaluation:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError."""
    spec, status = spec_of(EvaluationSpec, parent), status_of(EvaluationStatus, parent)
    run = await observe_run(reader, parent, spec, status, environment)
    namespace, reference = run.owner.namespace, spec.dataset.dataset_ref
    candidates = [one for each in spec.candidates for one in await _candidates(reader, namespace, each)]
    job_name, progress = status.job_name or "", environment.progress
    is_running = bool(job_name) and status.retry_time is None and status.completion_time is None
    shown = progress.shown(namespace, job_name, is_running=is_running)
    newer_in = progress.seconds_until_newer(namespace, job_name)
    return ObservedEvaluation(
        **vars(run),
        candidates=tuple(candidates),
        baseline=await _answering(reader, namespace, spec.baseline.model) if spec.baseline else None,
        dataset=None if reference is None else await resolve_dataset(reader, namespace, reference),
        endpoints=await _endpoints(reader, namespace, spec, run.class_),
        # Schemas are untrusted and may take long to check: other objects must not wait for them.
        refusal=await asyncio.to_thread(grading_refusal, spec),
        progress=shown.progress if shown else None,
        candidate_progress=tuple(shown.candidates or ()) if shown else (),
        newer_report_time=None if newer_in is None else datetime.now(UTC) + timedelta(seconds=newer_in),
        progress_endpoint=environment.progress_endpoint,
        arrived_report=environment.sent_reports.find(namespace, job_name),
    )


async def _candidates(reader: Reader, namespace: str, candidate: Candidate) -> list[tuple[str, Answering | Readiness]]:
    """A candidate by its name in the results; with checkpoint All, each checkpoint."""
    model = candidate.model
    if model.fine_tune_job_ref is None or model.checkpoint != ALL:
        return [(candidate.name, await _answering(reader, namespace, model))]
    found = await resolve_checkpoints(reader, namespace, model.fine_tune_job_ref.name, ALL)
    if isinstance(found, Readiness):
        return [(candidate.name, found)]
    return [(checkpoint_name(candidate.name, step), one) for step, one in found.items()]


async def _answering(reader: Reader, namespace: str, model: EvaluatedModel) -> Answering | Readiness:
    """Where a model's outputs come from; _endpoints resolves how an endpoint is called."""
    return model.endpoint or model.outputs or await resolve_model(reader, namespace, model)


async def _endpoints(
    reader: Reader, namespace: str, spec: EvaluationSpec, class_: ResolvedClass | Readiness
) -> tuple[EndpointConfig | Readiness, ...]:
    """The endpoints of candidates, baseline and graders, each once; none without a class."""
    if isinstance(class_, Readiness):
        return ()
    asked_by: dict[str, str] = {}
    for candidate in spec.candidates:
        if candidate.model.endpoint is not None:
            asked_by.setdefault(candidate.model.endpoint.name, f"Candidate {candidate.name!r} is")
    if spec.baseline is not None and spec.baseline.model.endpoint is not None:
        asked_by.setdefault(spec.baseline.model.endpoint.name, "The baseline is")
    for grader in spec.graders:
        if grader.asks is not None:
            asked_by.setdefault(grader.asks, f"Grader {grader.name!r} asks")
    if spec.safety is not None and spec.safety.classifier is not None:
        asked_by.setdefault(spec.safety.classifier.model, "spec.safety asks")
    return tuple([await resolve_endpoint(reader, namespace, class_, name, place) for name, place in asked_by.items()])
