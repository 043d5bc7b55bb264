"""Which run the spec asks for, and whether the status is of that one."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.dataset import MOST_RUNS, DatasetSpec, DatasetStatus, EarlierBuild
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN
from finetune_operator.core.digest import digest, without
from finetune_operator.dataset.observed import ObservedDataset


def run_digest(spec: DatasetSpec, number: int) -> str:
    """Eight characters for the run's number and all of the spec that can't change within a run."""
    return digest([number, without(spec, CHANGEABLE_WITHIN_A_RUN)], 8)


def run_key(status: DatasetStatus) -> str:
    """The run's part of the names of its Jobs and its folder."""
    return f"{status.run_id}-{status.run_digest}"


def is_same_run(observed: ObservedDataset) -> bool:
    """Whether the status describes the run that the spec asks for: a rollback may bring back a runId."""
    spec, status = observed.spec, observed.status
    if status.run_id != spec.run_id:
        return False
    if status.completion_time is not None and (
        status.observed_generation == observed.generation or status.run_digest is None
    ):
        return True  # A digest that differs, or is not there, is another version's.
    return status.run_digest == run_digest(spec, status.run_number or 1)


def new_run(observed: ObservedDataset, before: DatasetStatus, now: datetime) -> DatasetStatus:
    """The status with which a run begins, after the one before it, which goes into the history."""
    number = (before.run_number or 0) + 1
    return DatasetStatus(
        conditions=before.conditions,
        run_id=observed.spec.run_id,
        run_number=number,
        run_digest=run_digest(observed.spec, number),
        history=_with_run(before, now),
    )


def _with_run(status: DatasetStatus, now: datetime) -> list[EarlierBuild]:
    if status.run_id is None:
        return status.history
    revision = status.revision
    run = EarlierBuild(
        run_id=status.run_id,
        phase=status.phase or "Waiting",
        completion_time=status.completion_time or whole_seconds(now),
        digest=None if revision is None else revision.digest,
        uri=None if revision is None else revision.uri,
    )
    return [*status.history, run][-MOST_RUNS:]
