"""status.results: the scores that the Pod reported, and the end of the run with them; status.sentReport before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.evaluation import EvaluationStatus
from finetune_api.evaluation.safety import SafetyStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_operator.evaluation.candidates import ANOTHER_REVISION
from finetune_operator.evaluation.current_job import try_result, try_to_watch
from finetune_operator.evaluation.ends import complete, end_with_verdict
from finetune_operator.evaluation.observed import EvaluationDecision, EvaluationPlan, ObservedEvaluation
from finetune_operator.evaluation.scores.gates import summary
from finetune_operator.pods.retried_job import Succeeded


def keep_sent_report(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Store the whole report of the running try, which its Pod sends until it is stored."""
    arrived, job = observed.arrived_report, try_to_watch(observed)
    if plan.status.completion_time is not None or arrived is None or job is None or arrived.job_name != job.name:
        return plan
    return replace(plan, status=plan.status.model_copy(update={"sent_report": arrived}))


def take_scores(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """End the run with its scores, judged by the gates."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, status, job, now)
    if not isinstance(result, Succeeded):
        return None
    report = result.report
    assert isinstance(report, EvaluationReport), "RetriedJob asks for one"
    update = {
        "results": report.scores,
        "slices": report.slices,
        "gated_slices": report.gated_slices or [],
        "errors": report.errors,
        "usage": report.usage,
        "outputs": report.outputs,
        "calibrations": report.calibrations,
        "safety": SafetyStatus(results=report.safety or []) if observed.spec.safety is not None else None,
        # The Pod does not know what the candidates were trained on.
        "warnings": [*(one for one in status.warnings if one.startswith(ANOTHER_REVISION)), *report.warnings],
        "report_uri": report.report_uri,
        "completion_time": whole_seconds(now),
        "failure": None,
        "summary": summary(observed.spec.graders[0].name, report.scores),
    }
    return end_with_verdict(observed, complete(status.model_copy(update=update)), now)
