"""spec.suspend: the Pods save and end; the run is resumed by a new attempt from the newest checkpoint.

spec.cancel: its Pods save and end, and then the run is over for good, as Cancelled; its checkpoints are kept. Until
then, with spec.cancel false it goes on as one that was suspended.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.finetunejob.attempt_state import JobDecision, stopped, without_remaining_time
from finetune_operator.finetunejob.ends import cancelled_run
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import is_superseded, run_id_refusal
from finetune_operator.finetunejob.stale_jobs import (
    lost_pods_message,
    next_check,
    others_stopped,
    stale_jobs,
    stopping_message,
)
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS


def suspend_refused_run(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Suspend a run with a rejected spec: spec.suspend is applied even then."""
    refusal = run_id_refusal(observed, status)
    decision = suspend(observed, status, now) if refusal is not None else None
    if refusal is None or decision is None or decision.readiness is None:
        return None
    message = f"{decision.readiness.message} The spec is refused, too, and nothing resumes with it: {refusal.message}"
    return replace(decision, readiness=replace(decision.readiness, message=message))


def suspend(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Stop running Pods while spec.suspend is true, and start nothing."""
    if not observed.spec.suspend:
        return None
    status = stopped(status, "Suspended", now)
    if others_stopped(observed, now):
        return JobDecision(status, suspended(lost_pods_message(observed, now)))
    return _stop(observed, status, "suspend", now)


def cancel_run(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Cancel the current run, even with a rejected spec, unless the spec starts another run."""
    return None if is_superseded(observed, status) else cancel(observed, status, now)


def cancel(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Stop running Pods while spec.cancel is true, and then end the run as Cancelled."""
    if not observed.spec.cancel:
        return None
    status = without_remaining_time(stopped(status, "Cancelled", now))
    if not others_stopped(observed, now):
        return _stop(observed, status, "cancel", now)
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    return JobDecision(status, cancelled_run(observed.owner, status), requeue_at=now)


def _stop(observed: ObservedFineTuneJob, status: FineTuneJobStatus, field: str, now: datetime) -> JobDecision:
    return JobDecision(
        status,
        progressing(Reason.STOPPING, f"spec.{field} is true. {stopping_message(observed, now)}"),
        delete=stale_jobs(observed),
        requeue_at=next_check(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS)),
    )
