"""The Job of the current try, and its result."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_api.sources import is_below
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.allowed_class import class_or_refusal
from finetune_operator.dataset.objects import Reads, build_job_name, build_objects, run_digest, run_key
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.pods.job_outcome import refused_report
from finetune_operator.pods.leftovers import is_outdated, still_running
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import Disrupted, Failed, RetriedJob, Running, Succeeded


class NextTry(NamedTuple):
    """A try that may start."""

    number: int
    name: str
    """Of its Job."""


def build_job(spec: DatasetSpec) -> RetriedJob:
    """Only transient failures are retried, up to spec.retryLimit."""
    return RetriedJob(accepts=lambda report: isinstance(report, DatasetReport), retry_limit=spec.retry_limit)


def is_same_run(observed: ObservedDataset) -> bool:
    """Whether the status describes the run that the spec asks for: a rollback may bring back a runId."""
    spec, status = observed.spec, observed.status
    if status.run_id != spec.run_id:
        return False
    if status.completion_time is not None and (
        status.observed_generation == observed.generation or status.run_digest is None
    ):
        return True  # A digest that differs, or is not there, is another version's.
    return status.run_digest == run_digest(spec, status.run_number or 1)


def revision_to_read(observed: ObservedDataset) -> PinnedRevision | Readiness | None:
    """The prompts' revision that the run has pinned; before it begins, the one that their Dataset has. None without
    datasetRef."""
    if observed.prompts is None:
        return None
    recorded = observed.status.prompts_revision if is_same_run(observed) else None
    return recorded or observed.prompts


def current_job(observed: ObservedDataset) -> JobView | None:
    """The Job of the try that is running or has just ended."""
    status = observed.status
    if status.retry_time is not None or not is_same_run(observed):
        return None
    return next((job for job in observed.jobs if job.name == status.job_name), None)


def try_to_watch(observed: ObservedDataset) -> JobView | None:
    """The current Job; None if it is outdated and has not started."""
    job = current_job(observed)
    if job is None:
        return None
    return None if is_outdated(job, observed.pods_of(job), lambda: _objects_now(observed)) else job


def objects_of(observed: ObservedDataset, status: DatasetStatus, class_: ResolvedClass) -> list[Object]:
    """The objects of the status's try, built from the current class and spec."""
    prompts = revision_to_read(observed)
    assert not isinstance(prompts, Readiness), "wait_for_prompts decides before"
    reads = Reads(
        prompts,
        observed.classifier if isinstance(observed.classifier, EndpointConfig) else None,
        [one for one in observed.endpoints if isinstance(one, EndpointConfig)],
    )
    return build_objects(observed.owner, observed.spec, class_, run_key(status), status.try_number or 1, reads)


def try_result(observed: ObservedDataset, job: JobView, now: datetime) -> Running | Succeeded | Disrupted | Failed:
    """The result of a try. A report that is rejected is a final failure."""
    pods, status = observed.pods_of(job), observed.status
    result = build_job(observed.spec).result(
        job, pods, observed.warnings, now, seen=status.disruption, before=status.failure
    )
    if not isinstance(result, Succeeded):
        return result
    assert isinstance(result.report, DatasetReport), "RetriedJob asks for one"
    refusal = _refusal(status, result.report)
    return result if refusal is None else Failed(refused_report(pods, refusal), None, final=True)


def next_try(observed: ObservedDataset, status: DatasetStatus) -> NextTry:
    """Deterministic, so that a Job that a crash left behind is found by its name."""
    number = (status.try_number or 0) + 1
    return NextTry(number, build_job_name(observed.owner, run_key(status), number))


def still_there(observed: ObservedDataset, now: datetime, *, keep: str | None = None) -> str | None:
    """What has not ended yet, except the Job to keep and its Pods; None if everything has."""
    namespace = observed.owner.namespace
    return still_running(namespace, observed.jobs, observed.pods, observed.disowned, now, keep=keep)


def _objects_now(observed: ObservedDataset) -> list[Object] | None:
    """The objects that the current try would have now; None while none may start."""
    class_ = class_or_refusal(observed)
    if isinstance(class_, Readiness) or isinstance(revision_to_read(observed), Readiness):
        return None
    return objects_of(observed, observed.status, class_)


def _refusal(status: DatasetStatus, report: DatasetReport) -> str | None:
    """Why the report is rejected. It must be in the folder of the status: the class may have changed since."""
    revision, asked = report.revision, [one.model for one in report.usage]
    places = [revision.uri, *(split.uri for split in revision.splits if split.uri is not None)]
    outside = next((uri for uri in places if not is_below(uri, status.storage_uri)), None)
    if outside is not None:
        return f"it names {outside}, which is not below {status.storage_uri}"
    names = [split.name for split in revision.splits]
    if "training" not in names or len(set(names)) < len(names) or any(one.uri is None for one in revision.splits):
        return "its splits are not those of a dataset"
    if sum(split.examples for split in revision.splits) != revision.examples:
        return "its splits do not add up to its examples"
    if len(set(asked)) < len(asked):
        return "it reports the usage of one model twice"
    generated = revision.generated
    if generated is not None and not revision.examples <= generated.kept <= generated.completions:
        return "it has more examples than were generated"
    return None
