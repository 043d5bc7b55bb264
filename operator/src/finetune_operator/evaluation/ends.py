"""How a run ends: judged by its gates, failed or cancelled; and when what it leaves is deleted (also by its TTL)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import Readiness, cancelled
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import earliest
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.scores.gates import summary
from finetune_operator.evaluation.scores.verdict import decide_verdict
from finetune_operator.pods.leftovers import active_after_end

EVALUATE_AGAIN = "Change spec.runId to evaluate again."


def end_with_verdict(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision:
    """End a run that has its scores as its gates decide."""
    if status.summary is None:  # Another runId was asked for meanwhile.
        text = summary(observed.spec.graders[0].name, status.results)
        status = status.model_copy(update={"summary": text or None})
    verdict = decide_verdict(observed.spec, status)
    return end_run(
        observed, verdict.status, verdict.readiness, now, passed=verdict.passed, meanwhile=verdict.readiness.reason
    )


def fail_run(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    readiness: Readiness,
    now: datetime,
    *,
    at_once: bool = False,
) -> EvaluationDecision:
    """End the run as Failed, for good: only a new runId or another model starts another one."""
    if "runId" not in readiness.message:
        readiness = replace(readiness, message=f"{readiness.message} {EVALUATE_AGAIN}")
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return end_run(observed, status, readiness, now, at_once=at_once)


def cancelled_run(owner: Owner, status: EvaluationStatus) -> Readiness:
    """The readiness of a cancelled run."""
    return cancelled(f" What it has saved is kept in {status.storage_uri}." if status.storage_uri else "", owner.sweep)


def end_run(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    readiness: Readiness | None,
    now: datetime,
    *,
    passed: Readiness | None = None,
    meanwhile: Reason | None = None,
    at_once: bool = False,
) -> EvaluationDecision:
    """End a run, and what still runs: `at_once`, or once it has had time to end by itself."""
    active, check = active_after_end(observed.jobs, status.completion_time, now, at_once=at_once)
    rest = tries_to_delete(observed.owner.namespace, active, observed.pods)
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    # An end that is not written down yet is known by its Pod alone.
    if due is not None and now >= due and observed.status.completion_time == status.completion_time:
        rest, due = tries_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return EvaluationDecision(
        without_remaining_time(status).model_copy(update={"sent_report": None}),
        readiness,
        delete=rest,
        requeue_at=earliest([check, due]),
        passed=passed,
        meanwhile=meanwhile,
    )


def complete(status: EvaluationStatus) -> EvaluationStatus:
    """The status of a run that has its scores: the last reports may have been lost."""
    if status.progress is None:
        return status
    candidates = [
        one.model_copy(update={"outputs": one.total, "graded": one.total}) for one in status.progress.candidates
    ]
    update = {"percent": 100, "candidates": candidates}
    return status.model_copy(update={"progress": status.progress.model_copy(update=update)})


def without_remaining_time(status: EvaluationStatus) -> EvaluationStatus:
    """The status without an estimate of the remaining time, for a run that is over or stands still."""
    if status.progress is None:
        return status
    update = {"estimated_remaining_seconds": None, "estimated_remaining": None}
    return status.model_copy(update={"progress": status.progress.model_copy(update=update)})
