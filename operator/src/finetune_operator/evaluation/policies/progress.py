"""status.progress: how far the Pod of the newest try is, as it reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.evaluation import BASELINE, EvaluationProgress
from finetune_api.pod_contracts.progress import human_duration
from finetune_operator.core.plan import earliest
from finetune_operator.evaluation.candidates import names_in_results
from finetune_operator.evaluation.observed import EvaluationPlan, ObservedEvaluation
from finetune_operator.evaluation.run import RUN
from finetune_operator.retried_run.current_try import current_job


def record_progress(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Record the newest report; without one (the operator has just started) the status keeps the last one."""
    reported, status = observed.progress, plan.status
    if status.completion_time is not None or reported is None or current_job(RUN, observed) is None:
        return plan
    remaining = reported.estimated_remaining_seconds
    names = {BASELINE, *names_in_results(observed.spec, status.candidate_digests)}
    progress = EvaluationProgress(
        percent=reported.percent,
        candidates=list({one.candidate: one for one in observed.candidate_progress if one.candidate in names}.values()),
        estimated_remaining_seconds=remaining,
        estimated_remaining=None if remaining is None else human_duration(remaining),
        last_updated_time=reported.last_updated_time,
    )
    return replace(plan, status=status.model_copy(update={"progress": progress.over(status.progress)}))


def forget_remaining_time(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Show an estimate of the remaining time only while a try runs."""
    status, progress = plan.status, plan.status.progress
    runs = status.job_name is not None and status.retry_time is None and status.completion_time is None
    if runs or progress is None or progress.estimated_remaining_seconds is None:
        return plan
    update = {"estimated_remaining_seconds": None, "estimated_remaining": None}
    return replace(plan, status=status.model_copy(update={"progress": progress.model_copy(update=update)}))


def wake_at_newer_report(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Requeue when the status may show the newest report: there may be no further report or event."""
    return replace(plan, requeue_at=earliest([plan.requeue_at, observed.newer_report_time]))
