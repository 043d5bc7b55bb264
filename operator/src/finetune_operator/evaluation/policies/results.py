"""status.results: the scores that the Pod reported, and the end of the run with them; status.sentReport before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.evaluation import EvaluationStatus
from finetune_api.evaluation.safety import SafetyStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY
from finetune_operator.evaluation.observed import EvaluationDecision, EvaluationPlan, ObservedEvaluation
from finetune_operator.evaluation.pinned_revision import ANOTHER_REVISION
from finetune_operator.evaluation.run import RUN
from finetune_operator.evaluation.run_identity import is_same_run
from finetune_operator.evaluation.scores.gates import summary
from finetune_operator.evaluation.scores.verdict import decide_verdict
from finetune_operator.pods.retried_job import Succeeded
from finetune_operator.retried_run.current_try import result_of_try, try_to_watch
from finetune_operator.retried_run.ends import end_run

_JUDGED = frozenset({"Passed", "GateFailed", "Inconclusive"})


def keep_sent_report(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Store the whole report of the running try, which its Pod sends until it is stored."""
    arrived, job = observed.arrived_report, try_to_watch(RUN, observed, plan.status)
    if plan.status.completion_time is not None or arrived is None or job is None or arrived.job_name != job.name:
        return plan
    return replace(plan, status=plan.status.model_copy(update={"sent_report": arrived}))


def forget_sent_report(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Keep the whole report of no other try than the newest, and not beyond the end of the run."""
    sent, status = plan.status.sent_report, plan.status
    if sent is None or (status.completion_time is None and sent.job_name == status.job_name):
        return plan
    return replace(plan, status=status.model_copy(update={"sent_report": None}))


def keep_verdict(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Keep a judged run, also while its model is being retrained; gates that have changed are evaluated again."""
    is_judged = status.phase in _JUDGED or (bool(status.results) and status.phase not in ENDED_UNSUCCESSFULLY)
    if status.completion_time is None or not is_judged or not is_same_run(observed):
        return None
    return _end_with_verdict(observed, status, now)


def take_scores(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """End the run with its scores, judged by the gates."""
    result = result_of_try(RUN, observed, status, now)
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
    return _end_with_verdict(observed, _complete(status.model_copy(update=update)), now)


def _end_with_verdict(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision:
    """End a run that has its scores as its gates decide."""
    if status.summary is None:  # Another runId was asked for meanwhile.
        text = summary(observed.spec.graders[0].name, status.results)
        status = status.model_copy(update={"summary": text or None})
    verdict = decide_verdict(observed.spec, status)
    return end_run(
        RUN, observed, verdict.status, verdict.readiness, now, passed=verdict.passed, meanwhile=verdict.readiness.reason
    )


def _complete(status: EvaluationStatus) -> EvaluationStatus:
    """The status of a run that has its scores: the last reports may have been lost."""
    if status.progress is None:
        return status
    candidates = [
        one.model_copy(update={"outputs": one.total, "graded": one.total}) for one in status.progress.candidates
    ]
    update = {"percent": 100, "candidates": candidates}
    return status.model_copy(update={"progress": status.progress.model_copy(update=update)})
