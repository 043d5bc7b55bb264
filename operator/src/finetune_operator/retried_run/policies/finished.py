"""A run that is over without what was asked for: it keeps how it failed, or that it was cancelled."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import (
    Readiness,
    failed,
    failure_message,
    known_reason,
    missing_failure,
    sentence,
)
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY, Decision
from finetune_operator.retried_run.ends import cancelled_run, end_run
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def keep_unsuccessful(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Keep a finished run; its conditions are restored if another version wrote something else there."""
    if status.completion_time is None or not run.is_same_run(observed):
        return None
    if status.phase not in ENDED_UNSUCCESSFULLY:
        # Another runId was requested meanwhile and never started: the run ended as it was.
        return end_run(run, observed, status, _without_outcome(run, status), now)
    is_cancelled, missing = status.phase == "Cancelled", missing_failure(status.conditions, status.failure)
    if missing is not None and is_cancelled:
        missing = cancelled_run(run, observed, status)
    return end_run(run, observed, status, missing, now, at_once=is_cancelled)


def _without_outcome(run: RetriedRun[ObservedT, Status], status: Status) -> Readiness:
    """The readiness of a run that failed or was cancelled, where the conditions no longer say how."""
    if status.failure is None:
        return failed(Reason.FAILED, f"The run ended without {run.outcome}. {run.run_again}")
    return failed(known_reason(status.failure.reason), f"{sentence(failure_message(status.failure))} {run.run_again}")
