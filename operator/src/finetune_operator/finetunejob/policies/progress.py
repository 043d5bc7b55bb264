"""status.progress and status.checkpoints, as the Pods of the newest attempt report them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus
from finetune_api.pod_contracts.progress import carried
from finetune_operator.core.plan import earliest
from finetune_operator.finetunejob.attempt_state import (
    FINISHED,
    JobPlan,
    last_end,
    last_step,
    running_attempt,
    with_checkpoints,
    without_remaining_time,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.pods.job_outcome import first_disruption
from finetune_operator.pods.observed import is_lost


def record_progress(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record the newest report; without one (the operator has just started) the status keeps the last one.

    Pods that are being stopped still save and report after the end of their attempt has been recorded.
    """
    status = plan.status
    attempt = status.attempt
    if attempt is None or status.phase == "Succeeded":  # The final report has been recorded.
        return plan
    if attempt.disruption is None and running_attempt(status) is not None:
        seen = first_disruption(observed.pods_of(attempt.job_name))
        status = status.model_copy(update={"attempt": attempt.model_copy(update={"disruption": seen})})
    if observed.progress is not None:
        status = status.model_copy(update={"progress": carried(observed.progress, status.progress)})
    if status.phase in FINISHED or running_attempt(status) is None:
        status = without_remaining_time(status)
    if (report := observed.checkpoint_report) is not None:
        status = with_checkpoints(status, report.checkpoints, report.corrupt, report.checkpoint_seconds)
    return replace(plan, status=_with_end_of_pods(observed, status, attempt, now))


def wake_at_newer_report(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Requeue when the status may show the newest report: there may be no further report or event."""
    return replace(plan, requeue_at=earliest([plan.requeue_at, observed.newer_report_time]))


def _with_end_of_pods(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, attempt: AttemptStatus, now: datetime
) -> FineTuneJobStatus:
    """Extend the record of a stopped attempt until its last Pod has ended, with the last step that they reported."""
    record = last_end(status)
    if record is None:
        return status
    pods = [pod for pod in observed.pods if pod.job_name == attempt.job_name and not is_lost(pod, now)]
    ends = [pod.ended_time if pod.is_terminal else now for pod in pods]
    update = {
        "end_time": whole_seconds(max([record.end_time, *(end for end in ends if end is not None)])),
        "step": record.step if (step := last_step(status, attempt)) is None else step,
    }
    records = [one.model_copy(update=update) if one is record else one for one in status.ended_attempts]
    return status.model_copy(update={"ended_attempts": records})
