"""status.progress and status.checkpoints: what the Pods of the running attempt report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from finetune_api.finetunejob import CheckpointStatus, CorruptCheckpoint, FineTuneJobStatus
from finetune_api.progress import carried
from finetune_operator.core.report_validation import is_below
from finetune_operator.finetunejob.attempt_state import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import JobPlan
from finetune_operator.pods.exit_diagnosis import first_disruption

CHECKPOINTS_SHOWN = 100
CORRUPT_CHECKPOINTS_SHOWN = 20


def record_progress(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """The newest report; without one (the operator was just started) the status keeps what it has."""
    status = plan.status
    attempt = running_attempt(status)
    if attempt is None:
        return plan
    if attempt.disruption is None:
        seen = first_disruption(observed.pods_of(attempt.job_name))
        status = status.model_copy(update={"attempt": attempt.model_copy(update={"disruption": seen})})
    if observed.progress is not None:
        status = status.model_copy(update={"progress": carried(observed.progress, status.progress)})
    if observed.ledger is not None:
        ledger = observed.ledger
        status = with_checkpoints(status, ledger.checkpoints, ledger.corrupt, ledger.checkpoint_seconds)
    return replace(plan, status=status)


def with_checkpoints(
    status: FineTuneJobStatus,
    checkpoints: Sequence[CheckpointStatus],
    corrupt: Sequence[CorruptCheckpoint],
    checkpoint_seconds: float | None,
) -> FineTuneJobStatus:
    """The status with these checkpoints, the newest ones of the run's folder; its longest save is remembered."""
    checkpoints = [checkpoint for checkpoint in checkpoints if is_below(checkpoint.uri, status.storage_uri)]
    measured = [seconds for seconds in (status.checkpoint_seconds, checkpoint_seconds) if seconds is not None]
    return status.model_copy(
        update={
            "checkpoints": checkpoints[-CHECKPOINTS_SHOWN:],
            "corrupt_checkpoints": list(corrupt[-CORRUPT_CHECKPOINTS_SHOWN:]),
            "checkpoint_seconds": max(measured, default=None),
        }
    )
