"""A changed runId: the run that was goes into the history, and a new one begins."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.base import whole_seconds
from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import planned
from finetune_operator.finetunejob.attempt_records import FINISHED, stopped
from finetune_operator.finetunejob.concern import Step
from finetune_operator.finetunejob.objects import preflight_job_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_key import next_run_number, run_digest, run_key
from finetune_operator.finetunejob.stopping import STOPPING_CHECK_SECONDS, is_quiet, next_look, strays, what_stops

RUNS_KEPT = 10
SUPERSEDED: Literal["Superseded"] = "Superseded"


def rerun(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """Stop what the run before started, and begin anew once the last Pod of it has ended."""
    spec = observed.spec
    if status.run_id == spec.run_id:
        return status
    number = next_run_number(status)
    new: dict[str, Any] = {"run_id": spec.run_id, "run_number": number, "run_digest": run_digest(spec, number)}
    first = preflight_job_name(observed.owner, run_key(FineTuneJobStatus(**new)), 1)
    if status.run_id is not None and not is_quiet(observed, now, keep=first):
        status = stopped(status, SUPERSEDED, now)
        message = f"runId changed from {status.run_id!r} to {spec.run_id!r}. {what_stops(observed, now, keep=first)}"
        return planned(
            observed,
            status,
            status.phase or "Validating",
            progressing(Reason.STOPPING, message),
            now,
            delete=strays(observed, keep=first),
            requeue_at=next_look(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS)),
        )
    return FineTuneJobStatus(
        conditions=status.conditions,
        **new,
        start_time=whole_seconds(now),
        history=_with_run(status, now),
        storage_folders=status.storage_folders,
        usage=status.usage,
    ).over(status)


def _with_run(status: FineTuneJobStatus, now: datetime) -> list[EndedRun]:
    """The history with the run of this status, which is over."""
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
    return next((condition.reason for condition in conditions if condition.type == ConditionType.READY), SUPERSEDED)
