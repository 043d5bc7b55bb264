"""The phase Waiting: no try starts before the class allows it, and the Dataset of its prompts has a revision."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.allowed_class import class_or_refusal
from finetune_operator.dataset.current_job import current_job, is_same_run, revision_to_read
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.leftovers import jobs_to_delete
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_class(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Start nothing that the class does not allow; a running try continues."""
    found = class_or_refusal(observed)
    if not isinstance(found, Readiness) or current_job(observed) is not None:
        return None
    # A change of a ModelDeployment that the class refers to does not wake this object.
    waits = found.reason in (Reason.WAITING_FOR_MODEL, Reason.REFERENCE_NOT_FOUND)
    again = now + timedelta(seconds=START_CHECK_SECONDS) if waits else None
    active = [job for job in observed.jobs if job.state == "Active"]
    return DatasetDecision(
        status,
        with_previous_failure(found, status.failure if is_same_run(observed) else None, is_bounded=True),
        delete=jobs_to_delete(observed.owner.namespace, active, observed.pods),
        requeue_at=again,
        meanwhile=Reason.QUEUED,
    )


def wait_for_prompts(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Begin no run until the Dataset of generate.prompts.datasetRef has a revision with that split."""
    found = revision_to_read(observed)
    if not isinstance(found, Readiness):
        return None
    active = [job for job in observed.jobs if job.state == "Active"]
    delete = jobs_to_delete(observed.owner.namespace, active, observed.pods)
    return DatasetDecision(status, found, delete=delete, meanwhile=Reason.QUEUED)
