"""spec.ttlSecondsAfterFinished, and what else is left to do for a run that is over: its Jobs and Pods go, it stays."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.failed_condition import missing_failure
from finetune_operator.finetunejob.attempt_state import FINISHED
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.result import succeeded_readiness
from finetune_operator.finetunejob.policies.run_id import run_id_refusal
from finetune_operator.finetunejob.policy import Decision
from finetune_operator.finetunejob.stopping import stale_jobs
from finetune_operator.pods.builders import jobs_to_delete


def keep_finished(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Decision | None:
    """Leave a finished run as it is until runId changes; delete its Jobs when their time has come."""
    if status.phase not in FINISHED:
        return None
    refusal = run_id_refusal(observed, status)
    if refusal is None and status.run_id != observed.spec.run_id:
        return None
    ttl = observed.spec.ttl_seconds_after_finished
    due = None
    if ttl is not None and status.completion_time is not None and observed.jobs:
        due = status.completion_time + timedelta(seconds=ttl)
    delete = stale_jobs(observed)
    if due is not None and now >= due:
        delete, due = jobs_to_delete(observed.owner.namespace, observed.jobs), None
    readiness = refusal or _missing_end(status)
    return Decision(status, readiness, delete=delete, requeue_at=due, keeps_phase=True)


def _missing_end(status: FineTuneJobStatus) -> Readiness | None:
    """How the run ended, where the conditions say something else; None where they say it."""
    if status.phase == "Failed":
        return missing_failure(status.conditions, status.failure)
    is_stalled = any(one.type == ConditionType.STALLED and one.status == "True" for one in status.conditions)
    return succeeded_readiness(status.result) if is_stalled and status.result is not None else None
