"""The end of a run, and what is left of it afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import ConditionType, Reason
from finetune_api.finetunejob import FineTuneJobStatus, Progress, Result
from finetune_api.outcome import TrainReport
from finetune_api.progress import shown
from finetune_operator.core.conditions import Standing, ready, sentence
from finetune_operator.core.failed_condition import untold_failure
from finetune_operator.core.plan import planned, unchanged
from finetune_operator.finetunejob.attempt_records import FINISHED, running_attempt, with_end
from finetune_operator.finetunejob.concern import JobPlan, Step
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.refused import refusal
from finetune_operator.finetunejob.reports import with_ledger
from finetune_operator.finetunejob.stopping import strays
from finetune_operator.pods.retried_job import jobs_to_delete

_AGAIN = "Change spec.runId to run again."


def succeeded(observed: ObservedFineTuneJob, status: FineTuneJobStatus, report: TrainReport, now: datetime) -> JobPlan:
    """Rank 0 said that the run is complete and its result committed."""
    result = report.result
    attempt = running_attempt(status)
    if attempt is not None:
        status = with_end(status, attempt, "Succeeded", now)
    status = with_ledger(status, report.checkpoints, report.corrupt_checkpoints, report.checkpoint_seconds)
    status = status.model_copy(
        update={
            "result": result,
            "completion_time": whole_seconds(now),
            "progress": _complete(status, result, now),
            "failure": None,
        }
    )
    return planned(observed, status, "Succeeded", _success(result), now, requeue_at=now)


def _success(result: Result) -> Standing:
    loss = f" Validation loss {result.eval_loss:.4f}." if result.eval_loss is not None else ""
    return ready(Reason.SUCCEEDED, f"The {result.adapter_type} result of step {result.step} is in {result.uri}.{loss}")


def _complete(status: FineTuneJobStatus, result: Result, now: datetime) -> Progress | None:
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


def failed(observed: ObservedFineTuneJob, status: FineTuneJobStatus, standing: Standing, now: datetime) -> JobPlan:
    """The end of the run, for good: only a new runId starts again."""
    attempt = running_attempt(status)
    if attempt is not None:
        status = with_end(status, attempt, "Failed", now, reason=standing.reason, message=standing.message)
    status = status.model_copy(update={"completion_time": whole_seconds(now)})
    message = standing.message if "runId" in standing.message else f"{sentence(standing.message)} {_AGAIN}"
    # Once this is written, what still runs is a stray.
    over = replace(standing, message=message, failed=True)
    return planned(observed, status, "Failed", over, now, requeue_at=now)


def finished(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """A finished run stays as it is until runId changes; its Jobs and Pods go when their time has come."""
    if status.phase not in FINISHED:
        return status
    refused = refusal(observed, status)
    if refused is None and status.run_id != observed.spec.run_id:
        return status
    ttl = observed.spec.ttl_seconds_after_finished
    due = None
    if ttl is not None and status.completion_time is not None and observed.jobs:
        due = status.completion_time + timedelta(seconds=ttl)
    delete = strays(observed)
    if due is not None and now >= due:
        delete, due = jobs_to_delete(observed.owner.namespace, observed.jobs), None
    standing = refused or _untold_end(status)
    if standing is not None:
        return planned(observed, status, status.phase, standing, now, delete=delete, requeue_at=due)
    return unchanged(observed, status, delete=delete, requeue_at=due)


def _untold_end(status: FineTuneJobStatus) -> Standing | None:
    """How the run ended, where the conditions say something else; None where they tell it."""
    if status.phase == "Failed":
        return untold_failure(status.conditions, status.failure)
    is_stalled = any(one.type == ConditionType.STALLED and one.status == "True" for one in status.conditions)
    return _success(status.result) if is_stalled and status.result is not None else None
