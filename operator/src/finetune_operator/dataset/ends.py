"""How a run ends: with a revision, failed or cancelled; and when what it leaves is deleted (also by its TTL)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.dataset import MOST_RUNS, DatasetSpec, DatasetStatus, EarlierBuild, Revision
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import Readiness, cancelled, ready
from finetune_operator.core.plan import earliest
from finetune_operator.dataset.objects import run_digest
from finetune_operator.dataset.observed import DatasetDecision, ObservedDataset
from finetune_operator.pods.leftovers import active_after_end, jobs_to_delete

BUILD_AGAIN = "Change spec.runId to build again."


def succeeded(revision: Revision) -> Readiness:
    """The readiness of a run that committed its revision."""
    splits = ", ".join(f"{one.examples} {one.name}" for one in revision.splits)
    return ready(Reason.SUCCEEDED, f"{splits} examples are in {revision.uri} (revision {revision.digest}).")


def cancelled_run() -> Readiness:
    """The readiness of a cancelled run: a revision exists or does not, so that nothing of it is kept."""
    return cancelled()


def new_run(spec: DatasetSpec, before: DatasetStatus, now: datetime) -> DatasetStatus:
    """The status with which a run begins, after the one before it, which goes into the history."""
    number = (before.run_number or 0) + 1
    return DatasetStatus(
        conditions=before.conditions,
        run_id=spec.run_id,
        run_number=number,
        run_digest=run_digest(spec, number),
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


def fail_run(
    observed: ObservedDataset,
    status: DatasetStatus,
    readiness: Readiness,
    now: datetime,
    *,
    at_once: bool = False,
) -> DatasetDecision:
    """End the run as Failed, for good: only a new runId starts another one."""
    if "runId" not in readiness.message:
        readiness = replace(readiness, message=f"{readiness.message} {BUILD_AGAIN}")
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return end_run(observed, status, readiness, now, at_once=at_once)


def end_run(
    observed: ObservedDataset,
    status: DatasetStatus,
    readiness: Readiness | None,
    now: datetime,
    *,
    at_once: bool = False,
) -> DatasetDecision:
    """End a run, and what still runs: `at_once`, or once it has had time to end by itself."""
    active, check = active_after_end(observed.jobs, status.completion_time, now, at_once=at_once)
    rest = jobs_to_delete(observed.owner.namespace, active, observed.pods)
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    # An end that is not written down yet is known by its Pod alone.
    if due is not None and now >= due and observed.status.completion_time == status.completion_time:
        rest, due = jobs_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return DatasetDecision(status, readiness, delete=rest, requeue_at=earliest([check, due]))
