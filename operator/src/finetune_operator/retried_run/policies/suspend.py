"""spec.suspend: the Pod ends, and later another try begins, or continues with what is saved.

spec.cancel: the Pod ends, and then the run is over for good. Until then, spec.cancel false begins another try.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.core.plan import Decision
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS
from finetune_operator.retried_run.current_try import active_tries, still_there
from finetune_operator.retried_run.ends import cancelled_run, end_run
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def suspend(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Stop the running Pod while spec.suspend is true, and start nothing."""
    if not observed.spec.suspend:
        return None
    return _stop(run, observed, status, "suspend", now) or Decision(_without_job(status), suspended())


def cancel(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Stop the running Pod, and then end the run as Cancelled, whatever it waits for."""
    if not observed.spec.cancel:
        return None
    if not run.is_same_run(observed):
        status = run.new_run(observed, status, now).over(status)
    stopping = _stop(run, observed, status, "cancel", now)
    if stopping is not None:
        return stopping
    status = status.model_copy(update={"completion_time": whole_seconds(now), "retry_time": None})
    return end_run(run, observed, status, cancelled_run(run, observed, status), now, at_once=True)


def _stop(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, field: str, now: datetime
) -> Decision[Status] | None:
    """End what runs and wait for it; None: nothing does."""
    message = still_there(observed, now)
    if message is None and not any(job.is_active for job in observed.jobs):
        return None  # A Job that is kept by somebody's finalizer runs nothing.
    return Decision(
        _without_job(status),
        progressing(Reason.STOPPING, f"spec.{field} is true. {message or 'Waiting for the Pod to end.'}"),
        delete=active_tries(run, observed),
        requeue_at=now + timedelta(seconds=STOPPING_CHECK_SECONDS),
    )


def _without_job(status: Status) -> Status:
    """The Job is forgotten, so that its deletion is not taken for a loss."""
    return status.model_copy(update={"job_name": None, "retry_time": None})
