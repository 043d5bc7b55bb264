"""What the policies of a FineTuneJob give back, and the end of a run that failed."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import failed, sentence
from finetune_operator.core.plan import Plan
from finetune_operator.core.policies import Decision
from finetune_operator.finetunejob.attempt_state import ended, running_attempt

JobPlan = Plan[FineTuneJobStatus]
JobDecision = Decision[FineTuneJobStatus]


def run_failed(status: FineTuneJobStatus, reason: Reason, message: str, now: datetime) -> JobDecision:
    """The end of the run, for good: only another runId starts again."""
    attempt = running_attempt(status)
    if attempt is not None:
        status = ended(status, attempt, "Failed", now, reason=reason, message=message)
    if "runId" not in message:
        message = f"{sentence(message)} Change spec.runId to run again."
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    # Once this is written, the Jobs that still run are stale.
    return JobDecision(status, failed(reason, message), requeue_at=now)
