"""A run that is over: it keeps its revision, or how it failed."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import (
    Readiness,
    failed,
    failure_message,
    known_reason,
    missing_failure,
    sentence,
)
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY
from finetune_operator.dataset.current_job import is_same_run
from finetune_operator.dataset.ends import BUILD_AGAIN, cancelled_run, end_run, succeeded
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset


def keep_finished(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Keep a finished run; its conditions are restored if another version wrote something else there."""
    if status.completion_time is None or not is_same_run(observed):
        return None
    if status.phase not in ENDED_UNSUCCESSFULLY and status.revision is not None:
        return end_run(observed, status, succeeded(status.revision), now)
    if status.phase not in ENDED_UNSUCCESSFULLY:
        # Another runId was requested meanwhile and never started: the run ended as it was, without a revision.
        return end_run(observed, status, _without_revision(status), now)
    is_cancelled, missing = status.phase == "Cancelled", missing_failure(status.conditions, status.failure)
    if missing is not None and is_cancelled:
        missing = cancelled_run()
    return end_run(observed, status, missing, now, at_once=is_cancelled)


def _without_revision(status: DatasetStatus) -> Readiness:
    """The readiness of a run that failed or was cancelled, where the conditions no longer say how."""
    if status.failure is None:
        return failed(Reason.FAILED, f"The run ended without a revision. {BUILD_AGAIN}")
    return failed(known_reason(status.failure.reason), f"{sentence(failure_message(status.failure))} {BUILD_AGAIN}")
