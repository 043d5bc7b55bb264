"""The objects of a FineTuneJob, and their names: the preflight Pod; each attempt's Indexed Job, and their Service.

Names follow from the object's UID, the run and the number, so that what was created before a crash is found, and not
created twice. A runId may come again, by a rollback in git: the digest of the spec and the run's number tell its runs
apart. The digest is written into the status when the run begins, so that it outlives an operator whose defaults differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from finetune_api.dataset_reference import PinnedRevisions
from finetune_api.default_hyperparameters import DEFAULT_SEED, resolve_checkpoints
from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.finetunejob import (
    ConfigMapKeys,
    FineTuneJobSpec,
    FineTuneJobStatus,
    ResolvedHyperparameters,
)
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_SUCCEEDED
from finetune_api.pod_contracts.run import (
    METRICS_PORT,
    RENDEZVOUS_PORT,
    RUN_CONFIG_PATH,
    EndpointConfig,
    JobIdentity,
    ModelSource,
    PreflightRun,
    ProgressTarget,
    TrainRun,
)
from finetune_operator.core.ownership import OWNER_UID_LABEL, ROLE_LABEL, Owner, child_name, metadata
from finetune_operator.finetuneclass.resolve import (
    ResolvedClass,
    answers_location,
    image_sources,
    output_location,
    storage_config,
)
from finetune_operator.finetunejob.attempt_state import preflight_succeeded
from finetune_operator.finetunejob.run_identity import run_key
from finetune_operator.kube.resources import Object
from finetune_operator.models.endpoints import model_keys
from finetune_operator.pods.builders import PodRole, annotated_job, annotated_pod, put_in_queue, rendered
from finetune_operator.pods.quantities import number_of
from finetune_operator.pods.roles import PREFLIGHT_ROLE, TRAIN_ROLE, close_together
from finetune_operator.progress.endpoint import ProgressEndpoint

PREFLIGHT_SECONDS = 6 * 3600
"""Preflight reads every token of a dataset; one that takes longer than this is stuck."""
LONGEST_ATTEMPT_SECONDS = 60 * 24 * 3600
"""The longest attempt where nothing sets a deadline; the next one resumes from its newest checkpoint."""
SHORTEST_GRACE_SECONDS = 120
LONGEST_GRACE_SECONDS = 3600
POD_FAILURE_POLICY: Object = {
    "rules": [
        # A Pod that the infrastructure ended fails the Job as BackoffLimitExceeded, a rank's own failure as
        # PodFailurePolicy. Either ends the whole gang at once.
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Count", "onExitCodes": {"operator": "In", "values": [EXIT_DISRUPTED]}},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [EXIT_SUCCEEDED]}},
    ]
}


class NextJob(NamedTuple):
    """The next Job or preflight Pod; preflights and attempts each have a `number` of their own, counted from 1."""

    number: int
    name: str


def next_job(owner: Owner, status: FineTuneJobStatus) -> NextJob:
    """What the run makes next: deterministic, so that one that a crash left behind is found by its name."""
    run = run_key(status)
    if not preflight_succeeded(status):
        number = 1 + (status.preflight.try_number if status.preflight is not None else 0)
        return NextJob(number, preflight_pod_name(owner, run, number))
    newest = status.attempt.number if status.attempt is not None else 0
    number = 1 + max(newest, *(end.number for end in status.ended_attempts), 0)
    return NextJob(number, train_job_name(owner, run, number))


def preflight_pod_name(owner: Owner, run: str, try_number: int) -> str:
    """Deterministic name of the Pod of one preflight try; `run` is its run_key."""
    return child_name(owner, PREFLIGHT_ROLE, run, try_number)


def train_job_name(owner: Owner, run: str, attempt: int) -> str:
    """Deterministic name of one attempt; `run` is its run_key."""
    return child_name(owner, TRAIN_ROLE, run, attempt)


def rendezvous_service_name(owner: Owner) -> str:
    """Deterministic name of the Service that all attempts share."""
    return child_name(owner, TRAIN_ROLE)


def output_uri(owner: Owner, run: str, class_: ResolvedClass) -> str:
    """The folder in the storage of the run with this run_key."""
    return output_location(class_.spec, owner, run).uri


def model_source(spec: FineTuneJobSpec, status: FineTuneJobStatus) -> ModelSource:
    """The model that the run's Pods load."""
    found = status.starting_model
    if found is None:  # A run started by an older operator.
        return ModelSource(uri=spec.model.uri or "")
    return ModelSource(uri=found.uri, adapter_uri=found.adapter_uri, digest=found.digest)


def teacher_source(status: FineTuneJobStatus) -> ModelSource | None:
    """The model that method.distillation learns from; None with other methods."""
    found = status.teacher
    return None if found is None else ModelSource(uri=found.uri, adapter_uri=found.adapter_uri, digest=found.digest)


def preflight_objects(
    owner: Owner,
    spec: FineTuneJobSpec,
    class_: ResolvedClass,
    model: ModelSource,
    try_number: int,
    run_key: str | None = None,
    classifier: EndpointConfig | None = None,
    teacher: ModelSource | None = None,
    revisions: PinnedRevisions | None = None,
) -> list[Object]:
    """The Pod of one preflight, which reads everything that the run needs. `run_key` defaults to the runId.

    `classifier`: the model that dataset.screening asks. `teacher`: the model that method.distillation learns from.
    `revisions`: what each datasetRef stands for.
    """
    key = run_key or spec.run_id
    name = preflight_pod_name(owner, key, try_number)
    seed = spec.hyperparameters.seed
    run = PreflightRun(
        job=_identity(owner, spec),
        storage=storage_config(class_.spec),
        output_uri=output_uri(owner, key, class_),
        model=model,
        teacher=teacher,
        method=spec.method,
        adapter=spec.adapter,
        dataset=spec.dataset,
        revisions=revisions,
        allowed_datasets=class_.spec.sources.datasets,
        allowed_images=image_sources(class_.spec),
        hyperparameters=spec.hyperparameters,
        parallelism=spec.parallelism,
        continued=spec.model.fine_tune_job_ref is not None,
        accelerator_memory=accelerator_memory(class_.spec),
        on_accelerators=class_.spec.accelerator is not None,
        accelerators_per_node=None if class_.spec.accelerator is None else class_.spec.accelerator.count_per_node,
        seed=seed if seed is not None else DEFAULT_SEED,
        classifier=classifier,
        answers_uri=answers_location(class_.spec, owner).uri if classifier is not None else None,
    )
    role = PodRole(
        PREFLIGHT_ROLE,
        ("preflight", RUN_CONFIG_PATH),
        datasets=dataset_config_maps(spec),
        model_keys=model_keys([classifier] if classifier is not None else []),
        reads_hub=True,
    )
    files = {"run.json": run.model_dump_json(by_alias=True)}
    return rendered([annotated_pod(owner, name, role, class_.spec, files, deadline_seconds=PREFLIGHT_SECONDS)])


@dataclass(frozen=True)
class Attempt:
    """What the objects of an attempt are made from.

    `run`: the run's run_key; `folder`: URI of the run's folder; `checkpoint_seconds`: the longest save so far;
    `class_deadline_seconds`: limits.activeDeadlineSeconds of the class.
    """

    owner: Owner
    spec: FineTuneJobSpec
    class_: ResolvedClass
    model: ModelSource
    hyperparameters: ResolvedHyperparameters
    number: int
    run: str
    folder: str
    endpoint: ProgressEndpoint | None = None
    checkpoint_seconds: float | None = None
    class_deadline_seconds: int | None = None
    teacher: ModelSource | None = None
    revisions: PinnedRevisions | None = None

    @property
    def name(self) -> str:
        """The name of its Job, with which the names of its Pods begin."""
        return train_job_name(self.owner, self.run, self.number)

    @property
    def service(self) -> str | None:
        """The headless Service by which several Pods find each other; None on a single node."""
        return rendezvous_service_name(self.owner) if self.spec.parallelism.nodes > 1 else None


def attempt_objects(attempt: Attempt) -> list[Object]:
    """The Indexed Job of one attempt, with a Pod for each node, and the headless Service if there are several."""
    owner, class_spec, nodes = attempt.owner, attempt.class_.spec, attempt.spec.parallelism.nodes
    files = {"run.json": _train_run(attempt).model_dump_json(by_alias=True)}
    if attempt.endpoint:
        files["progress-ca.crt"] = attempt.endpoint.ca
    body = annotated_job(
        owner,
        attempt.name,
        _train_role(attempt),
        class_spec,
        files,
        deadline_seconds=attempt_seconds(attempt.class_deadline_seconds),
        completionMode="Indexed",
        completions=nodes,
        parallelism=nodes,
        podFailurePolicy=POD_FAILURE_POLICY,
        # A deleted Pod counts once its containers have exited: their exit codes matter, and no Pod starts beside it.
        podReplacementPolicy="Failed",
    )
    put_in_queue(body, class_spec)
    services = []
    if attempt.service is not None:
        pod = body["spec"]["template"]["spec"]
        pod["subdomain"] = attempt.service
        if (topology := class_spec.scheduling.gang_topology) is not None:
            pod["affinity"] = {**pod.get("affinity", {}), "podAffinity": close_together(topology, attempt.name)}
        services.append(_rendezvous_service(owner, attempt.service))
    return rendered([*services, body])


def _train_run(attempt: Attempt) -> TrainRun:
    """The run configuration of an attempt."""
    spec, class_spec, endpoint = attempt.spec, attempt.class_.spec, attempt.endpoint
    return TrainRun(
        job=_identity(attempt.owner, spec),
        attempt=attempt.number,
        storage=storage_config(class_spec),
        output_uri=attempt.folder,
        model=attempt.model,
        teacher=attempt.teacher,
        method=spec.method,
        adapter=spec.adapter,
        dataset=spec.dataset,
        revisions=attempt.revisions,
        allowed_datasets=class_spec.sources.datasets,
        allowed_images=image_sources(class_spec),
        hyperparameters=attempt.hyperparameters,
        parallelism=spec.parallelism,
        checkpoints=resolve_checkpoints(spec.checkpoints, spec.hyperparameters, spec.method),
        progress=ProgressTarget(url=endpoint.url_for(attempt.owner, attempt.name)) if endpoint else None,
    )


def _train_role(attempt: Attempt) -> PodRole:
    """The role of training Pods. Several of them get the first Pod's DNS name."""
    host, spec = f"{attempt.name}-0.{attempt.service}", attempt.spec
    return PodRole(
        TRAIN_ROLE,
        ("train", RUN_CONFIG_PATH),
        accelerated=True,
        environment={"RENDEZVOUS_HOST": host} if attempt.service is not None else {},
        # Ranks of several Pods on a node slow each other down without a limit; those of one Pod divide its cores.
        threads_from_cpu_request=spec.parallelism.processes_per_node == 1,
        reports_progress=attempt.endpoint is not None,
        metrics_port=METRICS_PORT,
        grace_seconds=grace_seconds(attempt.checkpoint_seconds),
        datasets=dataset_config_maps(spec),
        reads_hub=True,
    )


def dataset_config_maps(spec: FineTuneJobSpec) -> dict[str, ConfigMapKeys]:
    """The ConfigMaps that contain the job's datasets, by `training` and `validation`."""
    sets = {"training": spec.dataset.training, "validation": spec.dataset.validation}
    return {
        name: source.config_map_ref
        for name, source in sets.items()
        if source is not None and source.config_map_ref is not None
    }


def grace_seconds(checkpoint_seconds: float | None) -> int:
    """The seconds that Pods get to stop, for a step and a save: twice the longest save so far and a minute, bounded."""
    if checkpoint_seconds is None:
        return SHORTEST_GRACE_SECONDS
    return round(min(LONGEST_GRACE_SECONDS, max(SHORTEST_GRACE_SECONDS, 2 * checkpoint_seconds + 60)))


def attempt_seconds(class_deadline_seconds: int | None) -> int:
    """The seconds after which Kubernetes itself ends an attempt: later than the operator, which counts the whole run.

    They follow from the class's deadline, since the spec's may be raised up to it while the attempt runs.
    """
    return min(LONGEST_ATTEMPT_SECONDS, (class_deadline_seconds or LONGEST_ATTEMPT_SECONDS) + LONGEST_GRACE_SECONDS)


def accelerator_memory(class_spec: FineTuneClassSpec) -> int | None:
    """The memory of one accelerator of the class in bytes; None if the class does not state it."""
    if class_spec.accelerator is None or class_spec.accelerator.memory is None:
        return None
    return int(number_of(class_spec.accelerator.memory))


def _rendezvous_service(owner: Owner, name: str) -> Object:
    """The headless Service that gives every Pod of every attempt a DNS name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(owner, name, TRAIN_ROLE),
        "spec": {
            "clusterIP": "None",
            # Ranks must find each other before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": {OWNER_UID_LABEL: owner.uid, ROLE_LABEL: TRAIN_ROLE},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def _identity(owner: Owner, spec: FineTuneJobSpec) -> JobIdentity:
    return JobIdentity(namespace=owner.namespace, name=owner.name, uid=owner.uid, run_id=spec.run_id)
