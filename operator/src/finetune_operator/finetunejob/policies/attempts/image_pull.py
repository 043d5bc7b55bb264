"""The reason ImagePullFailed: an image that could not be pulled for too long ends the run."""

from __future__ import annotations

from datetime import datetime

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.attempt_state import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.decision import JobDecision, run_failed
from finetune_operator.pods.start_diagnosis import diagnose_start, image_pull_message, image_pull_timed_out


def fail_at_image_pull(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run when the image of the running attempt could not be pulled for 15 minutes."""
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    if job is None or job.state != "Active":
        return None
    blocked = diagnose_start(job, observed.pods_of(job.name), observed.warnings, now)
    if blocked is None or not image_pull_timed_out(blocked, now):
        return None
    return run_failed(status, blocked.reason, image_pull_message(blocked), now)
