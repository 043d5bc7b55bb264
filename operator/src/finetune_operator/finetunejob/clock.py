"""The clock of activeDeadlineSeconds stands still while nothing can run by no fault of the job's.

That is while it is suspended, while it waits for another job's result to start from, while its Job waits in a queue for
quota, and while its namespace's budget is used up.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.attempt_records import running_attempt
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policy import over_budget
from finetune_operator.finetunejob.starting_model import waits_for_model


def clock(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    """Stop the clock, or let it go on."""
    stands, since = _stands_still(observed, status), status.suspend_time
    if stands and since is None:
        return status.model_copy(update={"suspend_time": whole_seconds(now)})
    if stands or since is None:
        return status
    seconds = status.suspended_seconds + max(0, round((now - since).total_seconds()))
    return status.model_copy(update={"suspend_time": None, "suspended_seconds": seconds})


def _stands_still(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    if observed.spec.suspend or waits_for_model(observed, status) or over_budget(observed, status) is not None:
        return True
    attempt = running_attempt(status)
    job = observed.job(attempt.job_name) if attempt is not None else None
    return job is not None and job.suspended
