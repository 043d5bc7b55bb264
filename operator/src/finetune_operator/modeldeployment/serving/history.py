"""status.history and status.aborted: which revisions were rolled out, when each served alone, and which are not tried
again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.modeldeployment import MOST_ABORTED, AbortedRevision, Canary, RolledOutRevision
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.digest import digest, without
from finetune_operator.modeldeployment.serving.revisions import name_of

MOST_REVISIONS = 10
RETURNED = "ReturnedToEarlier"
"""The Event about a revision that is rolled out again without having to prove itself."""


def earlier_model(history: Sequence[RolledOutRevision], revision: str) -> ModelSource | None:
    """The model of a revision that every replica has served; None if none is known."""
    served = (one for one in history if one.revision == revision and one.available_time is not None)
    return next((one.model for one in served if one.model is not None), None)


def asked_as(spec: Canary) -> str:
    """How a canary was to prove itself: asked otherwise, it is tried again. A field that is new is no difference."""
    return digest(without(spec, {"approvedRevision", "rollbackWindowSeconds"}), 16)


def with_aborted(
    before: Sequence[AbortedRevision], revision: str, spec: Canary, why: str, now: datetime
) -> list[AbortedRevision]:
    """Those that are not tried again, with one more, the newest first."""
    one = AbortedRevision(
        revision=revision, canary_spec=asked_as(spec), message=why[:LINE_LENGTH], time=whole_seconds(now)
    )
    return [one, *(other for other in before if other.revision != revision)][:MOST_ABORTED]


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
