"""spec.runId and status.startingModel: the current run, and the model from which it starts.

A new runId starts a new run once the Pods of the previous one have ended. A runId that was used before is rejected.

The current runId with a changed spec is rejected, too. It takes two updates between two reconciliations, because the
API server validates each update only against the one before it. Meanwhile the status is kept and running Pods continue:
reverting the spec restores the run.

The starting model is recorded once and is the same for all attempts of the run, whatever happens to the job that
produced it or to the spec: a report is about the model with which its run started.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, StartingModel
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.finetunejob.attempt_state import FINISHED, JobDecision, JobPlan, stopped
from finetune_operator.finetunejob.objects import model_source, next_run_number, preflight_pod_name, run_digest, run_key
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.wrong_clock import no_earlier_than_created
from finetune_operator.finetunejob.stale_jobs import (
    STOPPING_CHECK_SECONDS,
    next_check,
    others_stopped,
    stale_jobs,
    stopping_message,
)
from finetune_operator.models.resolve import ResolvedModel

RUNS_KEPT = 10
SUPERSEDED: Literal["Superseded"] = "Superseded"


def refuse_run_id(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Stop here while the spec is not the one of the current run, nor of a new one."""
    refusal = run_id_refusal(observed, status)
    return None if refusal is None else JobDecision(status, refusal, keeps_phase=True)


def stop_previous_run(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Stop the previous run, and wait until its last Pod has ended."""
    run_id = observed.spec.run_id
    if status.run_id is None or status.run_id == run_id:
        return None
    first = preflight_pod_name(observed.owner, run_key(_new_run(observed, status)), 1)
    if others_stopped(observed, now, keep=first):
        return None
    message = f"runId changed from {status.run_id!r} to {run_id!r}. {stopping_message(observed, now, keep=first)}"
    return JobDecision(
        stopped(status, SUPERSEDED, now),
        progressing(Reason.STOPPING, message),
        delete=stale_jobs(observed, keep=first),
        requeue_at=next_check(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS)),
    )


def begin_run(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Move the previous run into the history, and start the new one."""
    status = plan.status
    if status.run_id == observed.spec.run_id:
        return plan
    update: dict[str, Any] = {
        "conditions": status.conditions,
        "start_time": whole_seconds(no_earlier_than_created(observed, now)),
        "history": _with_run(status, now),
        "storage_folders": status.storage_folders,
        "more_storage_folders": status.more_storage_folders,
        "usage": status.usage,
    }
    return replace(plan, status=_new_run(observed, status).model_copy(update=update).over(status))


def run_id_refusal(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> Readiness | None:
    """Why this spec can neither start nor continue a run; None if it can."""
    run_id = observed.spec.run_id
    if status.run_id == run_id:
        if not _is_changed(observed, status):
            return None
        return stalled(
            Reason.INVALID_SPEC,
            f"spec differs from the one that run {run_id!r} began with: it was changed, and runId was set back. Use a "
            "new runId to start a run with this spec.",
        )
    if all(run.run_id != run_id for run in status.history):
        return None
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.runId {run_id!r} was used by an earlier run (status.history) and can't be used again. Use a new one. "
        f"Until then, the status is that of run {status.run_id!r}.",
    )


def is_superseded(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the spec starts another run than the one of this status."""
    return status.run_id != observed.spec.run_id and run_id_refusal(observed, status) is None


def wait_for_model(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing until the job of fineTuneJobRef has a result."""
    reference, found = observed.spec.model.fine_tune_job_ref, observed.model
    if reference is None or status.starting_model is not None:
        return None
    if reference.name == observed.owner.name:
        found = stalled(
            Reason.INVALID_SPEC,
            "spec.model.fineTuneJobRef refers to this job itself, which has no result yet. Refer to another "
            "FineTuneJob, or set model.uri to an earlier result (status.history), and change runId.",
        )
    return JobDecision(status, found, delete=stale_jobs(observed)) if isinstance(found, Readiness) else None


def record_starting_model(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record once which model the reference resolves to."""
    if plan.status.starting_model is not None:
        return plan
    found = observed.model
    source = found.source if isinstance(found, ResolvedModel) else model_source(observed.spec, plan.status)
    model = StartingModel(uri=source.uri, adapter_uri=source.adapter_uri, digest=source.digest)
    return replace(plan, status=plan.status.model_copy(update={"starting_model": model}))


def waits_for_model(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the run can't start because the job of fineTuneJobRef has no result."""
    return status.starting_model is None and isinstance(observed.model, Readiness)


def _new_run(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """A status with only the identity of the run that the spec starts."""
    number = next_run_number(status)
    return FineTuneJobStatus(
        run_id=observed.spec.run_id, run_number=number, run_digest=run_digest(observed.spec, number)
    )


def _is_changed(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> bool:
    """Whether the spec changed within the run.

    A generation that was already observed and accepted has not: another operator version may compute other digests.
    """
    if status.run_digest is None or status.run_number is None:
        return False
    was_accepted = status.observed_generation in (None, observed.generation) and not _was_refused(status)
    return not was_accepted and status.run_digest != run_digest(observed.spec, status.run_number)


def _was_refused(status: FineTuneJobStatus) -> bool:
    return any(
        one.type == ConditionType.STALLED and one.status == "True" and one.reason == Reason.INVALID_SPEC
        for one in status.conditions
    )


def _with_run(status: FineTuneJobStatus, now: datetime) -> list[EndedRun]:
    """The history with the run of this status added."""
    if status.run_id is None:
        return status.history
    attempt, is_complete = status.attempt, status.phase in FINISHED
    run = EndedRun(
        run_id=status.run_id,
        phase=status.phase or "Validating",
        reason=_reason(status.conditions) if is_complete else SUPERSEDED,
        start_time=status.start_time,
        completion_time=status.completion_time or whole_seconds(now),
        attempts=attempt.number if attempt else 0,
        retries=attempt.retries if attempt else 0,
        disruptions=attempt.disruptions if attempt else 0,
        result_uri=status.result.uri if status.result else None,
        storage_uri=status.storage_uri,
    )
    return [*status.history, run][-RUNS_KEPT:]


def _reason(conditions: list[Condition]) -> str:
    found = next((condition.reason for condition in conditions if condition.type == ConditionType.READY), SUPERSEDED)
    return found[:LINE_LENGTH]  # Another version may have written a longer one.
