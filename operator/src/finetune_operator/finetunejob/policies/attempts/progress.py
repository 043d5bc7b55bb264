"""status.progress and status.checkpoints: what the Pods of the newest attempt report, until the last of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import AttemptStatus, CheckpointStatus, CorruptCheckpoint, FineTuneJobStatus
from finetune_api.progress import carried
from finetune_operator.core.report_validation import is_below
from finetune_operator.finetunejob.attempt_state import last_end, last_step, running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobPlan
from finetune_operator.pods.exit_diagnosis import first_disruption
from finetune_operator.pods.observed import is_lost

CHECKPOINTS_SHOWN = 100
CORRUPT_CHECKPOINTS_SHOWN = 20


def record_progress(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """The newest report; without one (the operator was just started) the status keeps what it has.

    Pods that were told to stop save and report after the end of their attempt was written down.
    """
    status = plan.status
    attempt = status.attempt
    if attempt is None or status.phase == "Succeeded":  # whose report says it all
        return plan
    if attempt.disruption is None and running_attempt(status) is not None:
        seen = first_disruption(observed.pods_of(attempt.job_name))
        status = status.model_copy(update={"attempt": attempt.model_copy(update={"disruption": seen})})
    if observed.progress is not None:
        status = status.model_copy(update={"progress": carried(observed.progress, status.progress)})
    if observed.ledger is not None:
        ledger = observed.ledger
        status = with_checkpoints(status, ledger.checkpoints, ledger.corrupt, ledger.checkpoint_seconds)
    return replace(plan, status=_with_end_of_pods(observed, status, attempt, now))


def _with_end_of_pods(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> FineTuneJobStatus:
    """The record of an attempt that was stopped ends with the last of its Pods, at the last step that they reported."""
    record = last_end(status)
    if record is None:
        return status
    pods = [pod for pod in observed.pods if pod.job_name == attempt.job_name and not is_lost(pod, now)]
    ends = [pod.ended_time if pod.ended else now for pod in pods]
    update = {
        "end_time": whole_seconds(max([record.end_time, *(end for end in ends if end is not None)])),
        "step": record.step if (step := last_step(status, attempt)) is None else step,
    }
    records = [one.model_copy(update=update) if one is record else one for one in status.ended_attempts]
    return status.model_copy(update={"ended_attempts": records})


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
