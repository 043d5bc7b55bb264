"""How runs end, and how the end of an attempt or a preflight is reported: with its result, or with why it failed.

While the next attempt is blocked (by a node, a quota, a queue), the condition also says why the previous one failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import AttemptStatus, EndedAttempt, FineTuneJobStatus, Progress, Result
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.progress import shown
from finetune_operator.core.conditions import Readiness, cancelled, failed, failure_message, ready, sentence
from finetune_operator.core.ownership import Owner
from finetune_operator.finetunejob.allowed_class import with_run_id_hint
from finetune_operator.finetunejob.attempt_state import (
    JobDecision,
    attempt_state,
    end_attempt,
    preflight_succeeded,
    running_attempt,
    with_checkpoints,
    without_remaining_time,
)
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.pods.retried_job import with_previous_failure

Decide = Callable[[ObservedFineTuneJob, FineTuneJobStatus, datetime], JobDecision | None]


def with_result(
    status: FineTuneJobStatus, attempt: AttemptStatus, report: TrainReport, now: datetime
) -> FineTuneJobStatus:
    """The status with this attempt's final report."""
    status = end_attempt(status, attempt, "Succeeded", now)
    status = with_checkpoints(status, report.checkpoints, report.corrupt_checkpoints, report.checkpoint_seconds)
    return status.model_copy(
        update={
            "result": report.result,
            "completion_time": whole_seconds(now),
            "progress": final_progress(status, report.result, now),
            "failure": None,
        }
    )


def final_progress(status: FineTuneJobStatus, result: Result, now: datetime) -> Progress | None:
    """The final progress, with the step, losses and rewards of the result, which is authoritative."""
    resolved, last = status.resolved, status.progress
    if resolved is None:
        return last
    total, step = resolved.total_steps, result.step
    is_last = last is not None and last.step == step
    loss = last.loss if result.train_loss is None and last is not None and is_last else result.train_loss
    reward = last.reward if result.train_reward is None and last is not None and is_last else result.train_reward
    return Progress(
        step=step,
        total_steps=total,
        percent=100,
        epoch=round(resolved.epochs * step / max(total, 1), 4),
        loss=shown(loss),
        eval_loss=shown(result.eval_loss),
        reward=shown(reward),
        valid_reward=shown(result.valid_reward),
        eval_step=None if result.eval_loss is None and result.valid_reward is None else result.step,
        tokens_per_second=last.tokens_per_second if last is not None else None,
        estimated_remaining_seconds=0,
        last_updated_time=whole_seconds(now),
    ).over(last)


def succeeded_readiness(result: Result) -> Readiness:
    """Ready, with the URI of the result."""
    measured = f" Validation loss {result.eval_loss:.4f}." if result.eval_loss is not None else ""
    if result.valid_reward is not None:
        measured = f" Validation reward {result.valid_reward:.4f}."
    message = f"The {result.adapter_type} result of step {result.step} is in {result.uri}.{measured}"
    return ready(Reason.SUCCEEDED, message)


def cancelled_run(owner: Owner, status: FineTuneJobStatus) -> Readiness:
    """The readiness of a cancelled run."""
    has_trained = bool(status.checkpoints) or (status.attempt is not None and status.progress is not None)
    return cancelled(f" Its checkpoints are kept in {status.storage_uri}." if has_trained else "", owner.sweep)


def run_failed(status: FineTuneJobStatus, reason: Reason, message: str, now: datetime) -> JobDecision:
    """End the run as Failed, for good: only a new runId starts another one."""
    attempt = running_attempt(status)
    if attempt is not None:
        status = end_attempt(status, attempt, "Failed", now, reason=reason, message=message)
    if "runId" not in message:
        message = f"{sentence(message)} Change spec.runId to run again."
    found = status.failure or FailureStatus(reason=reason, message=message)
    update = {"completion_time": whole_seconds(now), "failure": found}
    status = without_remaining_time(status).model_copy(update=update)
    # Once this is written, running Jobs are stale.
    return JobDecision(status, failed(reason, message), requeue_at=now)


def with_last_failure(decide: Decide) -> Decide:
    """The same policy, with the last failure added to the message of its decision."""

    def wrapped(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
        decision = decide(observed, status, now)
        if decision is None or decision.readiness is None:
            return decision
        return replace(decision, readiness=_with_failure_message(decision.status, decision.readiness))

    return wrapped


def last_failure_message(status: FineTuneJobStatus) -> str:
    """Why the last preflight or attempt failed, with a leading space; empty during training and without a failure."""
    if not preflight_succeeded(status):
        last = status.failure
        return "" if last is None else f" The last preflight failed: {last.reason}: {failure_message(last)}"
    records = [one for one in status.ended_attempts if one.outcome != "Replaced"]
    if attempt_state(status) == "Running" or not records or records[-1].outcome not in ("Failed", "Disrupted"):
        return ""
    return f" {end_message(records[-1])}"


def end_message(end: EndedAttempt) -> str:
    """How an attempt ended, and why; Kubernetes' reason of a disruption is not repeated if the message contains it."""
    how = "failed" if end.outcome == "Failed" else "was disrupted"
    is_in_message = end.outcome == "Disrupted" and (end.reason or "") in (end.message or "")
    why = ": ".join(part for part in (None if is_in_message else end.reason, end.message) if part)
    return f"Attempt {end.number} {how} ({why})" if why else f"Attempt {end.number} {how}."


def _with_failure_message(status: FineTuneJobStatus, readiness: Readiness) -> Readiness:
    if not preflight_succeeded(status):
        return with_run_id_hint(with_previous_failure(readiness, status.failure))
    failure = last_failure_message(status)
    return replace(readiness, message=f"{sentence(readiness.message)}{failure}") if failure else readiness
