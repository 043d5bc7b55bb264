"""How a run ends, and when what it leaves is deleted (also by its TTL)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import Readiness, cancelled
from finetune_operator.core.plan import Decision, earliest
from finetune_operator.pods.leftovers import active_after_end
from finetune_operator.retried_run.current_try import tries_to_delete
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def cancelled_run(run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status) -> Readiness:
    """The readiness of a cancelled run."""
    is_kept = run.resumes and status.storage_uri is not None
    return cancelled(f" What it has saved is kept in {status.storage_uri}." if is_kept else "", observed.owner.sweep)


def fail_run(
    run: RetriedRun[ObservedT, Status],
    observed: ObservedT,
    status: Status,
    readiness: Readiness,
    now: datetime,
    *,
    at_once: bool = False,
) -> Decision[Status]:
    """End the run as Failed, for good: only another run starts again."""
    if "runId" not in readiness.message:
        readiness = replace(readiness, message=f"{readiness.message} {run.run_again}")
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return end_run(run, observed, status, readiness, now, at_once=at_once)


def end_run(
    run: RetriedRun[ObservedT, Status],
    observed: ObservedT,
    status: Status,
    readiness: Readiness | None,
    now: datetime,
    *,
    passed: Readiness | None = None,
    meanwhile: Reason | None = None,
    at_once: bool = False,
) -> Decision[Status]:
    """End a run, and what still runs: `at_once`, or once it has had time to end by itself."""
    active, check = active_after_end(observed.jobs, status.completion_time, now, at_once=at_once)
    rest = tries_to_delete(run, observed, active)
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    # An end that is not written down yet is known by its Pod alone.
    if due is not None and now >= due and observed.status.completion_time == status.completion_time:
        rest, due = tries_to_delete(run, observed, observed.jobs), None
    again = earliest([check, due])
    return Decision(status, readiness, delete=rest, requeue_at=again, passed=passed, meanwhile=meanwhile)
