"""The object of a Dataset: a Job of one Pod."""

from __future__ import annotations

from finetune_api.dataset import DatasetKindStatus, DatasetSpec
from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_api.run import RUN_CONFIG_PATH, DatasetRun, EndpointConfig, JobIdentity
from finetune_operator.core.digest import digest, without
from finetune_operator.core.ownership import Owner, child_name
from finetune_operator.dataset.allowed_class import parts_of
from finetune_operator.finetuneclass.resolve import ResolvedClass, answers_location, output_location, storage_config
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import model_keys
from finetune_operator.pods.builders import PodRole, annotated_job, rendered
from finetune_operator.pods.roles import DATASET_ROLE

BUILD_SECONDS = 6 * 3600
"""The shortest limit of a try. The spec's own deadline counts the whole run."""
_MARGIN_SECONDS = 3600


def run_digest(spec: DatasetSpec, number: int) -> str:
    """Eight characters for the run's number and all of the spec that can't change within a run."""
    return digest([number, without(spec, CHANGEABLE_WITHIN_A_RUN)], 8)


def run_key(status: DatasetKindStatus) -> str:
    """The run's part of the names of its Jobs and its folder."""
    return f"{status.run_id}-{status.run_digest}"


def try_seconds(spec: DatasetSpec, class_spec: FineTuneClassSpec) -> int:
    """After how long Kubernetes itself ends a try: later than the operator does, which counts the whole run."""
    deadlines = (spec.active_deadline_seconds, class_spec.limits.active_deadline_seconds)
    return max([BUILD_SECONDS, *(seconds + _MARGIN_SECONDS for seconds in deadlines if seconds is not None)])


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
    classifier: EndpointConfig | None,
) -> list[Object]:
    """The Job of a try, whose Pod computes little, without accelerators."""
    config = DatasetRun(
        job=JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=spec.run_id),
        try_number=try_number,
        storage=storage_config(class_.spec),
        output_uri=output_uri(owner, run, class_),
        parts=parts_of(spec),
        allowed_datasets=class_.spec.sources.datasets,
        format=spec.format,
        prepare=spec.prepare,
        screening=spec.screening,
        split=spec.split,
        seed=spec.seed,
        classifier=classifier,
        answers_uri=answers_location(class_.spec, owner).uri if classifier is not None else None,
    )
    role = PodRole(
        DATASET_ROLE,
        ("build-dataset", RUN_CONFIG_PATH),
        datasets={part.name: part.config_map_ref for part in parts_of(spec) if part.config_map_ref is not None},
        model_keys=model_keys([classifier] if classifier is not None else []),
        reads_hub=True,
    )
    files = {"run.json": config.model_dump_json(by_alias=True)}
    name, seconds = build_job_name(owner, run, try_number), try_seconds(spec, class_.spec)
    return rendered([annotated_job(owner, name, role, class_.spec, files, deadline_seconds=seconds)])
