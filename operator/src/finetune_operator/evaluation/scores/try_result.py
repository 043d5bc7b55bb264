"""What came of a try: scores, unless its Pod reports some that can't be right, or a model was rolled out meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_operator.core.conditions import Readiness, sentence
from finetune_operator.evaluation.allowed_class import endpoints
from finetune_operator.evaluation.candidates import names_in_results
from finetune_operator.evaluation.objects import objects_of
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.scores.report_checks import (
    calibrations_refusal,
    outputs_refusal,
    safety_refusal,
    scores_refusal,
    slices_refusal,
    usage_refusal,
)
from finetune_operator.evaluation.scores.whole_report import whole_report
from finetune_operator.finetuneclass.resolve import output_location
from finetune_operator.pods.job_outcome import refused_report
from finetune_operator.pods.leftovers import differs
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.retried_job import Disrupted, Failed, Succeeded
from finetune_operator.retried_run.run import Result, retried_job


def try_result(observed: ObservedEvaluation, job: JobView, now: datetime) -> Result:
    """The result of a try. A report that is rejected is a final failure; a rollout meanwhile is none."""
    status, (decisive, pods) = observed.status, _decisive(job, observed.pods_of(job))
    retried = retried_job(EvaluationReport, observed.spec)
    result = retried.result(decisive, pods, observed.warnings, now, seen=status.disruption, before=status.failure)
    if isinstance(result, Failed) and _is_rollout(observed, job, result):
        return Disrupted(sentence(result.diagnosis.message), None)
    if not isinstance(result, Succeeded):
        return result
    assert isinstance(result.report, EvaluationReport), "RetriedJob asks for one"
    report = whole_report(observed, job, result.report)
    if isinstance(report, FailureStatus):
        return Failed(report, None, final=False)
    refusal = _refusal(observed, report)
    return Succeeded(report) if refusal is None else Failed(refused_report(pods, refusal), None, final=True)


def _decisive(job: JobView, pods: tuple[PodView, ...]) -> tuple[JobView, tuple[PodView, ...]]:
    """Of several Pods the first one grades and reports: once it has succeeded, what the others do no longer counts.

    One of them may have found no node all the while.
    """
    first = tuple(pod for pod in pods if pod.index == 0 and pod.exit_code == 0)
    return (replace(job, parallelism=1), first) if job.parallelism > 1 and first else (job, pods)


def _is_rollout(observed: ObservedEvaluation, job: JobView, result: Failed) -> bool:
    """Whether another revision was rolled out; a server that never reports its own revision would only fail again."""
    return result.diagnosis.reason == Reason.MODEL_CHANGED and _asks_another_revision(observed, job)


def _asks_another_revision(observed: ObservedEvaluation, job: JobView) -> bool:
    """Whether the next try asks another revision of a ModelDeployment than this one did, or waits for a rollout.

    The Job's digest tells: whatever else has changed since, the next try is another one, and has its own.
    """
    objects = objects_of(observed, job.name)
    if objects is None:
        return True
    return any(one.digest is not None for one in endpoints(observed)) and differs(job, objects)


def _refusal(observed: ObservedEvaluation, report: EvaluationReport) -> str | None:
    """Why the report is rejected. It must be in the folder of the status: the class may have changed since."""
    spec, status = observed.spec, observed.status
    folder = status.storage_uri
    if folder is None and not isinstance(observed.class_, Readiness):
        folder = output_location(observed.class_.spec, observed.owner, spec.run_id).uri
    names = [BASELINE, *names_in_results(spec, status.candidate_digests)]
    graders = [grader.name for grader in spec.graders]
    return (
        scores_refusal(
            report.scores, report.report_uri, folder, names, [*graders, *(one.name for one in spec.benchmarks)]
        )
        or slices_refusal(report.slices, names, graders, spec.dataset.slices)
        or outputs_refusal(report.outputs, names)
        or usage_refusal(report.usage)
        or safety_refusal(report.safety or [], names if spec.safety is not None else [])
        or calibrations_refusal(report.calibrations, [one.name for one in spec.graders if one.calibration is not None])
    )
