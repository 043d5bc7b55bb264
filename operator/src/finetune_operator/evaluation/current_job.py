"""The Job of the current try, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from finetune_api.conditions import ConditionType, Reason
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation import BASELINE, EvaluationSpec, EvaluationStatus
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import NamedModel
from finetune_api.pod_contracts.sent_report import digest_of, read_report
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.candidates import candidate_digests, models_to_evaluate, names_in_results
from finetune_operator.evaluation.class_limits import class_or_refusal, endpoints
from finetune_operator.evaluation.objects import evaluate_job_name, evaluate_objects, run_digest
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.scores.report_checks import (
    calibrations_refusal,
    outputs_refusal,
    safety_refusal,
    scores_refusal,
    slices_refusal,
    usage_refusal,
)
from finetune_operator.finetuneclass.resolve import ResolvedClass, output_location
from finetune_operator.kube.resources import Object
from finetune_operator.models.resolve import Undecided
from finetune_operator.pods.job_outcome import refused_report
from finetune_operator.pods.leftovers import differs, is_outdated, still_running
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.retried_job import Disrupted, Failed, RetriedJob, Running, Succeeded


class NextTry(NamedTuple):
    """The next try of the run, counted from 1, and the name of its Job."""

    number: int
    name: str


def next_try(observed: ObservedEvaluation, status: EvaluationStatus) -> NextTry:
    """Deterministic, so that a Job that a crash left behind is found by its name."""
    models, number = models_to_evaluate(observed), (status.try_number or 0) + 1
    assert not isinstance(models, Readiness), "wait_for_models decides before"
    return NextTry(number, evaluate_job_name(observed.owner, observed.spec, models, number))


def evaluation_job(spec: EvaluationSpec) -> RetriedJob:
    """An evaluation costs accelerators: only transient failures are retried, up to spec.retryLimit."""
    return RetriedJob(accepts=lambda report: isinstance(report, EvaluationReport), retry_limit=spec.retry_limit)


def is_same_run(observed: ObservedEvaluation) -> bool:
    """Whether the status describes the run of this spec with the current models.

    While a candidate is being retrained, the status still describes the previous model.
    """
    spec, status, models = observed.spec, observed.status, models_to_evaluate(observed)
    if status.run_id != spec.run_id:
        return False
    if status.phase == "Cancelled":  # whatever becomes of its models
        return True
    if status.run_digest not in (None, run_digest(spec)) and not _is_recorded(status, observed.generation):
        return False
    return isinstance(models, Readiness) or status.candidate_digests == candidate_digests(models)


def revision_to_read(observed: ObservedEvaluation) -> PinnedRevision | Readiness | None:
    """The revision that the run has pinned; before it begins, the one that the Dataset has. None without datasetRef."""
    if observed.spec.dataset.dataset_ref is None:
        return None
    recorded = observed.status.dataset_revision if is_same_run(observed) else None
    return recorded or observed.dataset


def current_job(observed: ObservedEvaluation) -> JobView | None:
    """The Job of the try that is running or has just ended; None if its model no longer exists."""
    status, models = observed.status, models_to_evaluate(observed)
    is_known = not isinstance(models, Readiness) or isinstance(models, Undecided)
    if status.retry_time is not None or not is_known or not is_same_run(observed):
        return None
    return next((job for job in observed.jobs if job.name == status.job_name), None)


def try_to_watch(observed: ObservedEvaluation) -> JobView | None:
    """The current Job; None if it is outdated and has not started."""
    job = current_job(observed)
    if job is None:
        return None
    return None if is_outdated(job, observed.pods_of(job), lambda: _objects_now(observed, job.name)) else job


def asks_another_revision(observed: ObservedEvaluation, job: JobView) -> bool:
    """Whether the next try asks another revision of a ModelDeployment than this one did, or waits for a rollout.

    The Job's digest tells: whatever else has changed since, the next try is another one, and has its own.
    """
    objects = _objects_now(observed, job.name)
    if objects is None:
        return True
    return any(one.digest is not None for one in endpoints(observed)) and differs(job, objects)


def objects_of(
    observed: ObservedEvaluation, class_: ResolvedClass, models: Sequence[NamedModel], name: str
) -> list[Object]:
    """The child objects of a try, built from the current class, spec and models."""
    asked, endpoint, revision = endpoints(observed), observed.progress_endpoint, revision_to_read(observed)
    assert not isinstance(revision, Readiness), "wait_for_dataset decides before"
    return evaluate_objects(observed.owner, observed.spec, class_, models, name, asked, endpoint, revision)


def _objects_now(observed: ObservedEvaluation, name: str) -> list[Object] | None:
    """The child objects that a try of this name would have now; None while none may start."""
    class_, models = class_or_refusal(observed), models_to_evaluate(observed)
    if isinstance(class_, Readiness) or isinstance(models, Readiness):
        return None
    if isinstance(revision_to_read(observed), Readiness):
        return None
    return objects_of(observed, class_, models, name)


def try_result(
    observed: ObservedEvaluation, status: EvaluationStatus, job: JobView, now: datetime
) -> Running | Succeeded | Disrupted | Failed:
    """The result of a try. A report that is rejected is a final failure."""
    job, pods = _decisive(job, observed.pods_of(job))
    retried = evaluation_job(observed.spec)
    result = retried.result(job, pods, observed.warnings, now, seen=status.disruption, before=status.failure)
    if not isinstance(result, Succeeded):
        return result
    assert isinstance(result.report, EvaluationReport), "RetriedJob asks for one"
    report = _whole_report(observed, job, result.report)
    if report.sent_digest is not None and not report.scores:
        return Failed(_lost_report(report.sent_digest), None, final=False)
    refusal = _refusal(observed, status, report)
    return Succeeded(report) if refusal is None else Failed(refused_report(pods, refusal), None, final=True)


def still_there(observed: ObservedEvaluation, now: datetime, *, keep: str | None = None) -> str | None:
    """What has not ended yet, except the Job to keep and its Pods; None if everything has."""
    namespace = observed.owner.namespace
    return still_running(namespace, observed.jobs, observed.pods, observed.disowned, now, keep=keep)


def _decisive(job: JobView, pods: tuple[PodView, ...]) -> tuple[JobView, tuple[PodView, ...]]:
    """Of several Pods the first one grades and reports: once it has succeeded, what the others do no longer counts.

    One of them may have found no node all the while.
    """
    first = tuple(pod for pod in pods if pod.index == 0 and pod.exit_code == 0)
    return (replace(job, parallelism=1), first) if job.parallelism > 1 and first else (job, pods)


def _whole_report(observed: ObservedEvaluation, job: JobView, said: EvaluationReport) -> EvaluationReport:
    """What the Pod sent before it ended, if its termination message names that; otherwise what this one says."""
    for sent in (observed.status.sent_report, observed.arrived_report):
        if sent is not None and (sent.job_name, digest_of(sent.content)) == (job.name, said.sent_digest):
            with suppress(ValueError):
                return read_report(sent.content)
    return said


def _lost_report(digest: str) -> FailureStatus:
    return FailureStatus(
        reason=Reason.REPORT_UNDELIVERED,
        message=f"The Pod has sent its report ({digest}), but the status does not have it any more.",
        suggestion="Nothing: the next try sends it again, and does not generate or pay for anything twice.",
    )


def _is_recorded(status: EvaluationStatus, generation: int) -> bool:
    """Whether the run ended with this generation: then a digest that differs comes from another operator version.

    A run without an end, or one that was rejected or unreadable later, is identified only by its digest.
    """
    return any(
        condition.type in (ConditionType.PASSED, ConditionType.FAILED) and condition.observed_generation == generation
        for condition in status.conditions
    )


def _refusal(observed: ObservedEvaluation, status: EvaluationStatus, report: EvaluationReport) -> str | None:
    """Why the report is rejected. It must be in the folder of the status: the class may have changed since."""
    folder = status.storage_uri
    if folder is None and not isinstance(observed.class_, Readiness):
        folder = output_location(observed.class_.spec, observed.owner, observed.spec.run_id).uri
    names = [BASELINE, *names_in_results(observed.spec, status.candidate_digests)]
    graders = [grader.name for grader in observed.spec.graders]
    measures = [*graders, *(benchmark.name for benchmark in observed.spec.benchmarks)]
    return (
        scores_refusal(report.scores, report.report_uri, folder, names, measures)
        or slices_refusal(report.slices, names, graders, observed.spec.dataset.slices)
        or outputs_refusal(report.outputs, names)
        or usage_refusal(report.usage)
        or safety_refusal(report.safety or [], names if observed.spec.safety is not None else [])
        or calibrations_refusal(
            report.calibrations, [one.name for one in observed.spec.graders if one.calibration is not None]
        )
    )
