"""No try starts while Pods of an earlier one are running."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetKindStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.dataset.current_job import still_there
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.leftovers import jobs_to_delete, stuck_jobs
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_earlier_pods(
    observed: ObservedDataset, status: DatasetKindStatus, now: datetime
) -> DatasetDecision | None:
    """Start nothing until Pods that are being deleted, or that the operator no longer owns, have ended."""
    message = still_there(observed, now)
    if message is None:
        return None
    stuck = stuck_jobs(observed.jobs, observed.pods)
    return DatasetDecision(
        status.model_copy(update={"job_name": observed.status.job_name}),
        with_previous_failure(progressing(Reason.RETRYING, message), status.failure, is_bounded=True),
        delete=jobs_to_delete(observed.owner.namespace, stuck, observed.pods),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.RETRYING,
    )
