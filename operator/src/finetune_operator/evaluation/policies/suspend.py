"""spec.suspend: the Pod ends, and another try goes on from what is saved.

spec.cancel: the Pod ends, and then the run is over for good. Until then, spec.cancel false lets another try go on.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import progressing, suspended
from finetune_operator.evaluation.current_job import is_same_run, still_there
from finetune_operator.evaluation.ends import cancelled_run, end_run, without_remaining_time
from finetune_operator.evaluation.objects import run_digest, tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS


def suspend(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Stop the running Pod while spec.suspend is true, and start nothing."""
    if not observed.spec.suspend:
        return None
    if status.run_id not in (None, observed.spec.run_id):
        # The run before may be asked for again, and keeps its end; `kubectl get` must not show it as the new one's.
        status = status.model_copy(update={"progress": None, "summary": None})
    status = without_remaining_time(status)
    stopping = _stop(observed, status, "suspend", now)
    return stopping or EvaluationDecision(_without_job(status), suspended())


def cancel(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Stop the running Pod, and then end the run as Cancelled, whatever it waits for."""
    if not observed.spec.cancel:
        return None
    if not is_same_run(observed):
        spec = observed.spec
        new = EvaluationStatus(conditions=status.conditions, run_id=spec.run_id, run_digest=run_digest(spec))
        status = new.over(status)
    stopping = _stop(observed, without_remaining_time(status), "cancel", now)
    if stopping is not None:
        return stopping
    status = status.model_copy(update={"completion_time": whole_seconds(now), "retry_time": None})
    return end_run(observed, status, cancelled_run(observed.owner, status), now, at_once=True)


def _stop(
    observed: ObservedEvaluation, status: EvaluationStatus, field: str, now: datetime
) -> EvaluationDecision | None:
    """End what runs and wait for it; None: nothing does."""
    running = [job for job in observed.jobs if job.state == "Active"]
    message = still_there(observed, now)
    if message is None and not any(job.is_active for job in running):
        return None  # A Job that is kept by somebody's finalizer runs nothing.
    return EvaluationDecision(
        _without_job(status),
        progressing(Reason.STOPPING, f"spec.{field} is true. {message or 'Waiting for the Pod to end.'}"),
        delete=tries_to_delete(observed.owner.namespace, running, observed.pods),
        requeue_at=now + timedelta(seconds=STOPPING_CHECK_SECONDS),
    )


def _without_job(status: EvaluationStatus) -> EvaluationStatus:
    """The Job is forgotten, so that its deletion is not taken for a loss."""
    return status.model_copy(update={"job_name": None, "retry_time": None})
