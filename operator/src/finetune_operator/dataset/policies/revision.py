"""status.revision: what the Pod has committed, and the end of the run with it."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.dataset import DatasetStatus
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_operator.dataset.current_job import try_result, try_to_watch
from finetune_operator.dataset.ends import end_run, succeeded
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.retried_job import Succeeded


def take_revision(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """End the run with its revision."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, job, now)
    if not isinstance(result, Succeeded):
        return None
    assert isinstance(result.report, DatasetReport), "RetriedJob asks for one"
    revision = result.report.revision
    ended = whole_seconds(now)
    update = {
        "revision": revision,
        "usage": result.report.usage,
        "completion_time": ended,
        "failure": None,
        "error_count": 0,
        "errors": [],
    }
    return end_run(observed, status.model_copy(update=update), succeeded(revision), now)
