"""The object of a Dataset: a Job of one Pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_api.pod_contracts.run import (
    PYTHON_SANDBOX_SOCKET,
    RUN_CONFIG_PATH,
    DatasetRun,
    EndpointConfig,
    JobIdentity,
)
from finetune_operator.core.active_deadline import try_seconds
from finetune_operator.core.digest import digest, without
from finetune_operator.core.ownership import Owner, child_name
from finetune_operator.dataset.allowed_class import parts_of
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


@dataclass(frozen=True)
class Reads:
    """What the spec names, as it was found."""

    prompts: PinnedRevision | None = None
    classifier: EndpointConfig | None = None
    endpoints: Sequence[EndpointConfig] = ()


def run_digest(spec: DatasetSpec, number: int) -> str:
    """Eight characters for the run's number and all of the spec that can't change within a run."""
    return digest([number, without(spec, CHANGEABLE_WITHIN_A_RUN)], 8)


def run_key(status: DatasetStatus) -> str:
    """The run's part of the names of its Jobs and its folder."""
    return f"{status.run_id}-{status.run_digest}"


def build_job_name(owner: Owner, run: str, try_number: int) -> str:
    """Deterministic name of a try; `run` is its run_key."""
    return child_name(owner, DATASET_ROLE, run, try_number)


def output_uri(owner: Owner, run: str, class_: ResolvedClass) -> str:
    """The folder in the storage of the run with this run_key."""
    return output_location(class_.spec, owner, run).uri


def build_objects(
    owner: Owner,
    spec: DatasetSpec,
    class_: ResolvedClass,
    run: str,
    try_number: int,
    reads: Reads,
) -> list[Object]:
    """The Job of a try, whose Pod computes little, without accelerators, unless it loads a teacher."""
    parts, generate, classifier = parts_of(spec, reads.prompts), spec.generate, reads.classifier
    asked = {one.name: one for one in (*reads.endpoints, *([] if classifier is None else [classifier]))}
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
        prompts_revision=reads.prompts,
        endpoints=list(reads.endpoints),
        allowed_images=[] if generate is None else image_sources(class_.spec),
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
