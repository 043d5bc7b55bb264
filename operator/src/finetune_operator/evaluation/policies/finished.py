"""A run that is over: it keeps its results, its verdict follows the gates; spec.ttlSecondsAfterFinished."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import (
    Readiness,
    cancelled,
    failed,
    failure_message,
    known_reason,
    missing_failure,
    sentence,
)
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY, Child, earliest
from finetune_operator.evaluation.current_job import is_same_run
from finetune_operator.evaluation.gates import summary
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.evaluation.policies.progress import without_remaining_time
from finetune_operator.evaluation.policies.verdict import decide_verdict

_JUDGED = frozenset({"Passed", "GateFailed", "Inconclusive"})
LEFTOVER_SECONDS = 30
"""What is still running so long after the report (a container that somebody added to the Pod) is deleted."""


def keep_finished(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Keep a finished run, also while its model is being retrained; gates that have changed are evaluated again."""
    if status.completion_time is None or not is_same_run(observed):
        return None
    if status.phase in _JUDGED or (status.results and status.phase not in ENDED_UNSUCCESSFULLY):
        return end_with_verdict(observed, status, now)
    if status.phase not in ENDED_UNSUCCESSFULLY:
        # Another runId was requested meanwhile and never started: the run ended as it was, without scores to judge.
        return end_run(observed, status, _without_scores(status), now)
    is_cancelled, missing = status.phase == "Cancelled", missing_failure(status.conditions, status.failure)
    if missing is not None and is_cancelled:
        missing = cancelled_run(status)
    return end_run(observed, status, missing, now, at_once=is_cancelled)


def _without_scores(status: EvaluationStatus) -> Readiness:
    """The readiness of a run that failed or was cancelled, where the conditions no longer say how."""
    again = "Change spec.runId to evaluate again."
    if status.failure is None:
        return failed(Reason.FAILED, f"The run ended without scores. {again}")
    return failed(known_reason(status.failure.reason), f"{sentence(failure_message(status.failure))} {again}")


def cancelled_run(status: EvaluationStatus) -> Readiness:
    """The readiness of a cancelled run."""
    return cancelled(f" What it has saved is kept in {status.storage_uri}." if status.storage_uri else "")


def end_with_verdict(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision:
    """End a run that has its scores as its gates decide."""
    if status.summary is None:  # Another runId was asked for meanwhile.
        text = summary(observed.spec.graders[0].name, status.results)
        status = status.model_copy(update={"summary": text or None})
    verdict = decide_verdict(observed.spec, status)
    return end_run(
        observed, verdict.status, verdict.readiness, now, passed=verdict.passed, meanwhile=verdict.readiness.reason
    )


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
    rest, check = _leftovers(observed, status, now, at_once=at_once)
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    # An end that is not written down yet is known by its Pod alone.
    if due is not None and now >= due and observed.status.completion_time == status.completion_time:
        rest, due = tries_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return EvaluationDecision(
        without_remaining_time(status),
        readiness,
        delete=rest,
        requeue_at=earliest([check, due]),
        passed=passed,
        meanwhile=meanwhile,
    )


def _leftovers(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime, *, at_once: bool
) -> tuple[tuple[Child, ...], datetime | None]:
    """The Jobs to delete because they are still running after the end, or when to check for them."""
    active = [job for job in observed.jobs if job.state == "Active"]
    due = (status.completion_time or now) + timedelta(seconds=LEFTOVER_SECONDS)
    # A time further in the future was written by a wrong clock.
    if active and not at_once and now < due <= now + timedelta(seconds=LEFTOVER_SECONDS):
        return (), due
    return tries_to_delete(observed.owner.namespace, active, observed.pods), None
