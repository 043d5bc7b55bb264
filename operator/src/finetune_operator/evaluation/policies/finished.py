"""A run that is over: it keeps its results, and its verdict follows the gates."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import (
    Readiness,
    failed,
    failure_message,
    known_reason,
    missing_failure,
    sentence,
)
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY
from finetune_operator.evaluation.current_job import is_same_run
from finetune_operator.evaluation.ends import EVALUATE_AGAIN, cancelled_run, end_run, end_with_verdict
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation

_JUDGED = frozenset({"Passed", "GateFailed", "Inconclusive"})


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
        missing = cancelled_run(observed.owner, status)
    return end_run(observed, status, missing, now, at_once=is_cancelled)


def _without_scores(status: EvaluationStatus) -> Readiness:
    """The readiness of a run that failed or was cancelled, where the conditions no longer say how."""
    if status.failure is None:
        return failed(Reason.FAILED, f"The run ended without scores. {EVALUATE_AGAIN}")
    return failed(known_reason(status.failure.reason), f"{sentence(failure_message(status.failure))} {EVALUATE_AGAIN}")
