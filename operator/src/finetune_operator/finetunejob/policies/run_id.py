"""spec.runId, status.startingModel and datasetRevisions: the current run, and what it starts from.

A new runId starts a new run once the Pods of the previous one have ended. A runId that was used before is rejected.

The current runId with a changed spec is rejected, too (run_identity.py). Meanwhile the status is kept and running Pods
continue: reverting the spec restores the run.

The starting model and the revisions of Datasets are recorded once and are the same for all attempts of the run,
whatever happens to the job or Dataset that produced them or to the spec: a report is about what its run started with.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.dataset_reference import PinnedRevision, PinnedRevisions
from finetune_api.finetunejob import EndedRun, FineTuneJobStatus, StartingModel
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness, first_missing, progressing, stalled
from finetune_operator.finetunejob.allowed_class import with_run_id_hint
from finetune_operator.finetunejob.attempt_state import FINISHED, JobDecision, JobPlan, stopped
from finetune_operator.finetunejob.objects import model_source, preflight_pod_name
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import next_run_number, run_digest, run_id_refusal, run_key
from finetune_operator.finetunejob.stale_jobs import (
    next_check,
    others_stopped,
    stale_jobs,
    stopping_message,
)
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.leftovers import STOPPING_CHECK_SECONDS

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
        "start_time": whole_seconds(observed.server_times.no_earlier(now)),
        "history": _with_run(status, now),
        "storage_folders": status.storage_folders,
        "more_storage_folders": status.more_storage_folders,
        "usage": status.usage,
    }
    return replace(plan, status=_new_run(observed, status).model_copy(update=update).over(status))


def wait_for_model(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing until the jobs of fineTuneJobRef, of the model and of its teacher, have a result."""
    model, distillation = observed.spec.model.fine_tune_job_ref, observed.spec.method.distillation
    teacher = None if distillation is None else distillation.teacher.fine_tune_job_ref
    for field, reference, resolved, recorded in (
        ("model", model, observed.model, status.starting_model),
        ("method.distillation.teacher", teacher, observed.teacher, status.teacher),
    ):
        if reference is None or recorded is not None:
            continue
        found = _refers_to_itself(field) if reference.name == observed.owner.name else resolved
        if observed.reward_refusal is not None:  # no model would help
            found = with_run_id_hint(observed.reward_refusal)
        if isinstance(found, Readiness):
            return JobDecision(status, found, delete=stale_jobs(observed))
    return None


def _refers_to_itself(field: str) -> Readiness:
    return stalled(
        Reason.INVALID_SPEC,
        f"spec.{field}.fineTuneJobRef refers to this job itself, which has no result yet. Refer to another "
        f"FineTuneJob, or set {field}.uri to an earlier result (status.history), and change runId.",
    )


def record_starting_model(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record once which models the references resolve to."""
    update: dict[str, StartingModel] = {}
    if plan.status.starting_model is None:
        found = observed.model
        source = found.source if isinstance(found, ResolvedModel) else model_source(observed.spec, plan.status)
        update["starting_model"] = _as_started(source)
    if plan.status.teacher is None and isinstance(observed.teacher, ResolvedModel):
        update["teacher"] = _as_started(observed.teacher.source)
    return replace(plan, status=plan.status.model_copy(update=update)) if update else plan


def wait_for_datasets(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Start nothing until the Datasets of each datasetRef have a revision with that split."""
    found = first_missing(observed.datasets.values()) if status.dataset_revisions is None else None
    return None if found is None else JobDecision(status, found, delete=stale_jobs(observed))


def record_revisions(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Record once which revisions the run reads: a newer one of a Dataset changes nothing."""
    if plan.status.dataset_revisions is not None or not observed.datasets:
        return plan
    found = {name: one for name, one in observed.datasets.items() if isinstance(one, PinnedRevision)}
    return replace(plan, status=plan.status.model_copy(update={"dataset_revisions": PinnedRevisions(**found)}))


def _as_started(source: ModelSource) -> StartingModel:
    return StartingModel(uri=source.uri, adapter_uri=source.adapter_uri, digest=source.digest)


def _new_run(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """A status with only the identity of the run that the spec starts."""
    number = next_run_number(status)
    return FineTuneJobStatus(
        run_id=observed.spec.run_id, run_number=number, run_digest=run_digest(observed.spec, number)
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
