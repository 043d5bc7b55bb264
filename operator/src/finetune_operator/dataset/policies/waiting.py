"""The phase Waiting: no run begins before the Dataset of its prompts has a revision."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.dataset import DatasetStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.dataset.pinned_revision import revision_to_read
from finetune_operator.dataset.run import RUN
from finetune_operator.retried_run.current_try import active_tries


def wait_for_prompts(observed: ObservedDataset, status: DatasetStatus, now: datetime) -> DatasetDecision | None:
    """Begin no run until the Dataset of generate.prompts.datasetRef has a revision with that split."""
    found = revision_to_read(observed)
    if not isinstance(found, Readiness):
        return None
    return DatasetDecision(status, found, delete=active_tries(RUN, observed), meanwhile=Reason.QUEUED)
