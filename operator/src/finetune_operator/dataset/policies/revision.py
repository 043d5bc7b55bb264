"""status.revision: what the Pod has committed, and the end of the run with it."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus, Revision
from finetune_api.pod_contracts.outcome import DatasetReport
from finetune_operator.core.conditions import Readiness, ready
from finetune_operator.core.plan import ENDED_UNSUCCESSFULLY
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.dataset.run import RUN
from finetune_operator.dataset.run_identity import is_same_run
from finetune_operator.pods.retried_job import Succeeded
from finetune_operator.retried_run.current_try import result_of_try
from finetune_operator.retried_run.ends import end_run


def keep_revision(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Keep a finished run; its conditions are restored if another version wrote something else there."""
    is_over = status.completion_time is not None and status.phase not in ENDED_UNSUCCESSFULLY
    if not is_over or status.revision is None or not is_same_run(observed):
        return None
    return end_run(RUN, observed, status, _succeeded(status.revision), now)


def take_revision(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """End the run with its revision."""
    result = result_of_try(RUN, observed, status, now)
    if not isinstance(result, Succeeded):
        return None
    assert isinstance(result.report, DatasetReport), "RetriedJob asks for one"
    revision = result.report.revision
    update = {
        "revision": revision,
        "usage": result.report.usage,
        "completion_time": whole_seconds(now),
        "failure": None,
        "error_count": 0,
        "errors": [],
    }
    return end_run(RUN, observed, status.model_copy(update=update), _succeeded(revision), now)


def _succeeded(revision: Revision) -> Readiness:
    splits = ", ".join(f"{one.examples} {one.name}" for one in revision.splits)
    return ready(Reason.SUCCEEDED, f"{splits} examples are in {revision.uri} (revision {revision.digest}).")
