"""No try starts while Pods of an earlier one are running."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.dataset.current_job import next_try, still_there
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.leftovers import jobs_to_delete, stuck_jobs
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_earlier_pods(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Stop the tries of an earlier run and an outdated one, and start nothing until all Pods have ended."""
    keep = next_try(observed, status).name
    message = still_there(observed, now, keep=keep)
    if message is None:
        return None
    stuck = stuck_jobs(observed.jobs, observed.pods)
    reason = Reason.STOPPING if status.try_number is None else Reason.RETRYING
    others = [job for job in observed.jobs if job.name != keep or job in stuck]
    return DatasetDecision(
        status.model_copy(update={"job_name": _job_to_look_for(observed, status)}),
        with_previous_failure(progressing(reason, message), status.failure, is_bounded=True),
        delete=jobs_to_delete(observed.owner.namespace, others, observed.pods),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.RETRYING,
    )


def _job_to_look_for(observed: ObservedDataset, status: DatasetStatus) -> str | None:
    """A Job that lost its owner is found by its name alone. Another one is forgotten: its deletion is no loss."""
    if observed.disowned or status.retry_time is not None:
        return observed.status.job_name
    return None
