"""spec.suspend: the Pod ends, and another try begins anew.

spec.cancel: the Pod ends, and then the run is over for good. Until then, spec.cancel false begins another try.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.dataset.current_job import is_same_run, still_there
from finetune_operator.dataset.ends import cancelled_run, end_run, new_run
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS, jobs_to_delete


def suspend(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Stop the running Pod while spec.suspend is true, and start nothing."""
    if not observed.spec.suspend:
        return None
    return _stop(observed, status, "suspend", now) or DatasetDecision(_without_job(status), suspended())


def cancel(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Stop the running Pod, and then end the run as Cancelled, whatever it waits for."""
    if not observed.spec.cancel:
        return None
    if not is_same_run(observed):
        status = new_run(observed.spec, status, now).over(status)
    stopping = _stop(observed, status, "cancel", now)
    if stopping is not None:
        return stopping
    status = status.model_copy(update={"completion_time": whole_seconds(now), "retry_time": None})
    return end_run(observed, status, cancelled_run(), now, at_once=True)


def _stop(observed: ObservedDataset, status: DatasetStatus, field: str, now: datetime) -> DatasetDecision | None:
    """End what runs and wait for it; None: nothing does."""
    running = [job for job in observed.jobs if job.state == "Active"]
    message = still_there(observed, now)
    if message is None and not any(job.is_active for job in running):
        return None  # A Job that is kept by somebody's finalizer runs nothing.
    return DatasetDecision(
        _without_job(status),
        progressing(Reason.STOPPING, f"spec.{field} is true. {message or 'Waiting for the Pod to end.'}"),
        delete=jobs_to_delete(observed.owner.namespace, running, observed.pods),
        requeue_at=now + timedelta(seconds=STOPPING_CHECK_SECONDS),
    )


def _without_job(status: DatasetStatus) -> DatasetStatus:
    """The Job is forgotten, so that its deletion is not taken for a loss."""
    return status.model_copy(update={"job_name": None, "retry_time": None})
