"""The object of a Dataset: a Job of one Pod."""

from __future__ import annotations

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.pod_contracts.run import (
    PYTHON_SANDBOX_SOCKET,
    RUN_CONFIG_PATH,
    DatasetRun,
    EndpointConfig,
    JobIdentity,
)
from finetune_operator.core.active_deadline import try_seconds
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner, child_name
from finetune_operator.dataset.allowed_class import class_or_refusal, parts_of
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.pinned_revision import revision_to_read
from finetune_operator.dataset.run_identity import run_key
from finetune_operator.finetuneclass.resolve import (
    ResolvedClass,
    answers_location,
    image_sources,
    output_location,
    storage_config,
)
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import model_keys
from finetune_operator.pods.builders import PodRole, annotated_job, put_in_queue, rendered
from finetune_operator.pods.python_sandbox import add_python_sandbox
from finetune_operator.pods.roles import DATASET_ROLE, GENERATE_ROLE, of_role

BUILD_SECONDS = 6 * 3600
"""The shortest limit of a try. The spec's own deadline counts the whole run."""
GENERATE_SECONDS = 24 * 3600
"""The same of a try that asks a teacher."""


def build_job_name(owner: Owner, run: str, try_number: int) -> str:
    """Deterministic name of a try; `run` is its run_key."""
    return child_name(owner, DATASET_ROLE, run, try_number)


def output_uri(owner: Owner, run: str, class_: ResolvedClass) -> str:
    """The folder in the storage of the run with this run_key."""
    return output_location(class_.spec, owner, run).uri


def _reads_images(spec: DatasetSpec) -> bool:
    """Whether a model is shown images: a teacher those of prompts, or the classifier those of examples."""
    return spec.generate is not None or (spec.screening is not None and spec.screening.images)


def objects_of(observed: ObservedDataset, status: DatasetStatus) -> list[Object] | None:
    """The Job of the status's try, from the current class and spec; None while none may start.

    Its Pod computes little, without accelerators, unless it loads a teacher.
    """
    class_, prompts = class_or_refusal(observed), revision_to_read(observed)
    if isinstance(class_, Readiness) or isinstance(prompts, Readiness):
        return None
    owner, spec, run, try_number = observed.owner, observed.spec, run_key(status), status.try_number or 1
    classifier = observed.classifier if isinstance(observed.classifier, EndpointConfig) else None
    endpoints = [one for one in observed.endpoints if isinstance(one, EndpointConfig)]
    parts, generate = parts_of(spec, prompts), spec.generate
    asked = {one.name: one for one in (*endpoints, *([] if classifier is None else [classifier]))}
    runs_python = generate is not None and any(grader.python is not None for grader in generate.graders)
    config = DatasetRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=spec.run_id),
        try_number=try_number,
        storage=storage_config(class_.spec),
        output_uri=output_uri(owner, run, class_),
        parts=parts,
        allowed_datasets=class_.spec.sources.datasets,
        format=spec.format,
        prepare=spec.prepare,
        screening=spec.screening,
        split=spec.split,
        seed=spec.seed,
        classifier=classifier,
        answers_uri=answers_location(class_.spec, owner).uri if asked else None,
        generate=generate,
        prompts_revision=prompts,
        endpoints=endpoints,
        allowed_images=image_sources(class_.spec) if _reads_images(spec) else [],
        python_sandbox=PYTHON_SANDBOX_SOCKET if runs_python else None,
    )
    loads_model = generate is not None and generate.teacher.uri is not None
    pod_class = of_role(class_.spec, class_.spec.evaluation) if loads_model else class_.spec
    role = PodRole(
        GENERATE_ROLE if loads_model else DATASET_ROLE,
        ("build-dataset", RUN_CONFIG_PATH),
        accelerated=loads_model,
        datasets={part.name: part.config_map_ref for part in parts if part.config_map_ref is not None},
        model_keys=model_keys(list(asked.values())),
        reads_hub=True,
    )
    files = {"run.json": config.model_dump_json(by_alias=True)}
    name = build_job_name(owner, run, try_number)
    shortest = BUILD_SECONDS if spec.generate is None else GENERATE_SECONDS
    seconds = try_seconds(shortest, spec.active_deadline_seconds, class_.spec.limits.active_deadline_seconds)
    body = annotated_job(owner, name, role, pod_class, files, deadline_seconds=seconds)
    if runs_python:
        add_python_sandbox(body["spec"]["template"], pod_class)
    if loads_model:
        put_in_queue(body, class_.spec)
    return rendered([body])
