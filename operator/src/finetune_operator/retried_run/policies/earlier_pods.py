"""No try starts while an earlier one is running: both would write the same, and may hold accelerators."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import Decision
from finetune_operator.pods.leftovers import stuck_jobs
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS
from finetune_operator.retried_run.current_try import next_try, still_there, tries_to_delete
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def wait_for_earlier_pods(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Stop the tries of an earlier run and an outdated one, and start nothing until all Pods have ended."""
    keep = next_try(run, observed, status).name
    message = still_there(observed, now, keep=keep)
    if message is None:
        return None
    stuck = stuck_jobs(observed.jobs, observed.pods)
    reason = Reason.STOPPING if status.try_number is None else Reason.RETRYING
    others = [job for job in observed.jobs if job.name != keep or job in stuck]
    return Decision(
        status.model_copy(update={"job_name": _job_to_look_for(observed, status)}),
        with_previous_failure(progressing(reason, message), status.failure, is_bounded=True),
        delete=tries_to_delete(run, observed, others),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.RETRYING,
    )


def _job_to_look_for(observed: ObservedT, status: Status) -> str | None:
    """A Job that lost its owner is found by its name alone. Another one is forgotten: its deletion is no loss."""
    if observed.disowned or status.retry_time is not None:
        return observed.status.job_name
    return None
