"""status.history: which revisions were rolled out, and when each served alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from finetune_api.base import whole_seconds
from finetune_api.modeldeployment import RolledOutRevision
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.modeldeployment.serving.revisions import name_of

MOST_REVISIONS = 10


def replaced_time(history: Sequence[RolledOutRevision], revision: str) -> datetime | None:
    """When this revision was replaced, the last time; None if it never served."""
    for following, one in pairwise(history):
        if one.revision == revision and one.available_time is not None:
            return following.applied_time
    return None


def with_rollout(
    before: Sequence[RolledOutRevision], applied: ModelSource, *, complete: bool, now: datetime
) -> list[RolledOutRevision]:
    """The history, newest first, with what is applied. `complete`: all replicas serve that, and nothing else."""
    time = whole_seconds(now)
    current, *earlier = before if before and before[0].revision == name_of(applied) else [None, *before]
    if current is None:
        current = RolledOutRevision(revision=name_of(applied), model=applied, applied_time=time)
    if complete and current.available_time is None:
        current = current.model_copy(update={"available_time": time})
    return [current, *earlier][:MOST_REVISIONS]
