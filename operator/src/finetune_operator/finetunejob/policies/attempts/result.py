"""status.result and the phase Succeeded: rank 0 reported that the run is complete and its result committed."""

from __future__ import annotations

from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, FineTuneJobStatus, Progress, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import shown
from finetune_operator.core.conditions import Readiness, ready
from finetune_operator.finetunejob.attempt_state import FINISHED, attempt_state, ended
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.attempts.progress import with_checkpoints
from finetune_operator.finetunejob.policies.decision import JobDecision


def succeed(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """End the run with its result, once an attempt has succeeded."""
    if status.phase in FINISHED or attempt_state(status) != "Succeeded" or status.result is None:
        return None
    # Once this is written, the Jobs that still run are stale.
    return JobDecision(status, succeeded_readiness(status.result), requeue_at=now)


def with_result(
    status: FineTuneJobStatus, attempt: AttemptStatus, report: TrainReport, now: datetime
) -> FineTuneJobStatus:
    """The status with what this attempt reported at its end."""
    status = ended(status, attempt, "Succeeded", now)
    status = with_checkpoints(status, report.checkpoints, report.corrupt_checkpoints, report.checkpoint_seconds)
    return status.model_copy(
        update={
            "result": report.result,
            "completion_time": whole_seconds(now),
            "progress": _final_progress(status, report.result, now),
            "failure": None,
        }
    )


def succeeded_readiness(result: Result) -> Readiness:
    """Ready, with where the result is."""
    loss = f" Validation loss {result.eval_loss:.4f}." if result.eval_loss is not None else ""
    return ready(Reason.SUCCEEDED, f"The {result.adapter_type} result of step {result.step} is in {result.uri}.{loss}")


def _final_progress(status: FineTuneJobStatus, result: Result, now: datetime) -> Progress | None:
    """The progress at the end, with the result's losses: reports are hints, this is the truth.

    A run that was to stop early ended where it was last seen, any other at its last step.
    """
    resolved, last = status.resolved, status.progress
    if resolved is None:
        return last
    total = resolved.total_steps
    step = total
    if resolved.early_stopping is not None and last is not None:
        step = min(total, max(last.step, result.step))
    loss = result.train_loss
    if loss is None and last is not None and last.step == step:
        loss = last.loss
    return Progress(
        step=step,
        total_steps=total,
        percent=100,
        epoch=round(resolved.epochs * step / max(total, 1), 4),
        loss=shown(loss),
        eval_loss=shown(result.eval_loss),
        tokens_per_second=last.tokens_per_second if last is not None else None,
        estimated_remaining_seconds=0,
        last_updated_time=whole_seconds(now),
    )
