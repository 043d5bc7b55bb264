"""The objects of an Evaluation: a ConfigMap and a Job, of one Pod or an Indexed one of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation import EvaluationSpec, GatedSlice
from finetune_api.model_usage import Budget
from finetune_api.pod_contracts.run import (
    PYTHON_SANDBOX_SOCKET,
    RUN_CONFIG_PATH,
    EndpointConfig,
    EvaluateRun,
    JobIdentity,
    NamedModel,
    ProgressTarget,
)
from finetune_operator.core.active_deadline import try_seconds
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.digest import digest, without
from finetune_operator.core.ownership import Owner, child_name
from finetune_operator.evaluation.allowed_class import class_or_refusal, endpoints
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.pinned_revision import revision_to_read
from finetune_operator.evaluation.run_identity import NOT_MEASURED, run_digest
from finetune_operator.finetuneclass.resolve import (
    ResolvedClass,
    answers_location,
    image_sources,
    output_location,
    storage_config,
)
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import model_keys
from finetune_operator.pods.builders import (
    PodRole,
    from_config_map,
    job,
    pinned,
    put_in_queue,
    rendered,
    run_config_map,
)
from finetune_operator.pods.python_sandbox import add_python_sandbox
from finetune_operator.pods.roles import EVALUATE_ROLE, of_role, without_accelerator
from finetune_operator.progress.endpoint import ProgressEndpoint

EVALUATE_SECONDS = 24 * 3600
"""A day: the shortest limit of a try. Use fewer examples or shorter answers to make an evaluation faster."""


def _gated_slices(spec: EvaluationSpec) -> list[GatedSlice]:
    """The slices that gates depend on, each once."""
    of_gates = ((gate.slice, gate.scored_by) for gate in spec.gates if gate.slice is not None)
    return list(dict.fromkeys(GatedSlice(by=one.by, value=one.value, grader=grader) for one, grader in of_gates))


def evaluate_job_name(owner: Owner, spec: EvaluationSpec, models: Sequence[NamedModel], try_number: int) -> str:
    """Deterministic name of a try; another run, or another model (a new run of its FineTuneJob), gives another name."""
    identity = [model.model_dump_json() for model in models]
    return child_name(owner, EVALUATE_ROLE, spec.run_id, run_digest(spec), try_number, *identity)


def _run_key(spec: EvaluationSpec, models: Sequence[NamedModel]) -> str:
    """The key of a run's budget: a new model has a new budget, even with the same runId.

    A run with a raised budget keeps what it has used.
    """
    measured = digest(without(spec, NOT_MEASURED | {"budget"}), 8)
    return digest([measured, *(model.model_dump_json() for model in models)], 8)


def objects_of(observed: ObservedEvaluation, name: str) -> list[Object] | None:
    """The objects of a try of this name, from the current class, spec and models; None while none may start."""
    class_, models, revision = class_or_refusal(observed), models_to_evaluate(observed), revision_to_read(observed)
    if isinstance(class_, Readiness) or isinstance(models, Readiness) or isinstance(revision, Readiness):
        return None
    owner, spec, asked = observed.owner, observed.spec, endpoints(observed)
    return evaluate_objects(owner, spec, class_, models, name, asked, observed.progress_endpoint, revision)


def evaluate_objects(
    owner: Owner,
    spec: EvaluationSpec,
    class_: ResolvedClass,
    models: Sequence[NamedModel],
    name: str,
    endpoints: Sequence[EndpointConfig] = (),
    progress: ProgressEndpoint | None = None,
    revision: PinnedRevision | None = None,
) -> list[Object]:
    """A Job that asks all models and grades. It has accelerators, and several Pods, only if a model is loaded.

    `endpoints`: the class's models that it calls. `revision`: what datasetRef stands for.
    """
    folder = output_location(class_.spec, owner, spec.run_id)
    loads_models = any(model.model is not None for model in models)
    runs_python = any(grader.python is not None for grader in spec.graders)
    pod_class = of_role(class_.spec, class_.spec.evaluation) if loads_models else without_accelerator(class_.spec)
    run = EvaluateRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=spec.run_id),
        storage=storage_config(class_.spec),
        output_uri=folder.join(name).uri,
        models=list(models),
        dataset_uri=revision.file_uri if revision is not None else spec.dataset.uri or "",
        revision=revision,
        allowed_datasets=class_.spec.sources.datasets,
        allowed_images=image_sources(class_.spec),
        limit_examples=spec.dataset.max_examples,
        graders=spec.graders,
        benchmarks=spec.benchmarks,
        endpoints=list(endpoints),
        budget=spec.budget or Budget(),
        run_key=_run_key(spec, models),
        answers_uri=answers_location(class_.spec, owner).uri if endpoints else None,
        generation=spec.generation,
        cluster_by=spec.dataset.cluster_by,
        slices=spec.dataset.slices,
        gated_slices=_gated_slices(spec),
        safety=spec.safety,
        safety_gates=spec.safety_gates,
        on_error=spec.on_error,
        max_errored_percent=spec.max_errored_percent,
        progress=ProgressTarget(url=progress.url_for(owner, name)) if progress else None,
        outputs_uri=folder.join("outputs").uri,
        nodes=spec.nodes if loads_models else 1,
        python_sandbox=PYTHON_SANDBOX_SOCKET if runs_python else None,
    )
    run_json = run.model_dump_json(by_alias=True)
    role = _role(run_json, endpoints, loads_models=loads_models, reports_progress=progress is not None)
    config_map = run_config_map(owner, name, EVALUATE_ROLE, _files(run_json, progress))
    of_class = class_.spec.limits.active_deadline_seconds
    deadline = try_seconds(EVALUATE_SECONDS, spec.active_deadline_seconds, of_class)
    body = job(owner, name, role, pod_class, from_config_map(name), deadline_seconds=deadline, **_shared_by(run.nodes))
    if runs_python:
        add_python_sandbox(body["spec"]["template"], pod_class)
    if loads_models:
        put_in_queue(body, class_.spec)
    return rendered([config_map, body])


def _role(run_json: str, endpoints: Sequence[EndpointConfig], *, loads_models: bool, reports_progress: bool) -> PodRole:
    return PodRole(
        EVALUATE_ROLE,
        ("evaluate", RUN_CONFIG_PATH),
        accelerated=loads_models,
        environment=pinned(run_json),
        model_keys=model_keys(endpoints),
        reads_hub=True,
        reports_progress=reports_progress,
    )


def _shared_by(nodes: int) -> dict[str, Any]:
    """Of a Job whose Pods know by their index which share is theirs; all of them end if one fails."""
    if nodes == 1:
        return {}
    # A deleted Pod is replaced once its containers have exited, so that no two Pods have one index.
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "podReplacementPolicy": "Failed",
    }


def _files(run_json: str, progress: ProgressEndpoint | None) -> dict[str, str]:
    return {"run.json": run_json, **({"progress-ca.crt": progress.ca} if progress is not None else {})}
