"""No preflight or attempt starts while an earlier Pod of the job is running."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.finetunejob.attempt_state import JobDecision, progress_reason
from finetune_operator.finetunejob.objects import next_job
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.stale_jobs import (
    next_check,
    others_stopped,
    stale_jobs,
    stopping_message,
)
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS


def wait_for_earlier_pods(
    observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime
) -> JobDecision | None:
    """Start nothing until all Pods of earlier Jobs have ended."""
    keep = next_job(observed.owner, status).name
    if others_stopped(observed, now, keep=keep):
        return None
    return JobDecision(
        status,
        progressing(progress_reason(status), stopping_message(observed, now, keep=keep)),
        delete=stale_jobs(observed, keep=keep),
        requeue_at=next_check(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS)),
    )
