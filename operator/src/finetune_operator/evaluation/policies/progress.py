"""status.progress: how far the Pod of the newest try is, as it reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.evaluation import BASELINE, EvaluationProgress
from finetune_api.pod_contracts.progress import human_duration
from finetune_operator.core.plan import earliest
from finetune_operator.evaluation.candidates import names_in_results
from finetune_operator.evaluation.current_job import current_job
from finetune_operator.evaluation.observed import EvaluationPlan, ObservedEvaluation


def record_progress(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Record the newest report; without one (the operator has just started) the status keeps the last one."""
    reported, status = observed.progress, plan.status
    if status.completion_time is not None or reported is None or current_job(observed) is None:
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


def wake_at_newer_report(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Requeue when the status may show the newest report: there may be no further report or event."""
    return replace(plan, requeue_at=earliest([plan.requeue_at, observed.newer_report_time]))
