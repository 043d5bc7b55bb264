"""The phases Succeeded, Failed and Cancelled: a finished run stays as it is until runId changes.

Jobs that are still active are deleted. With spec.ttlSecondsAfterFinished, all its Jobs and their Pods are deleted that
long after its end.
"""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.active_deadline import expiry
from finetune_operator.core.conditions import Readiness, missing_failure
from finetune_operator.finetunejob.attempt_state import FINISHED, JobDecision
from finetune_operator.finetunejob.ends import cancelled_run, succeeded_readiness
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.run_identity import run_id_refusal
from finetune_operator.finetunejob.stale_jobs import stale_jobs
from finetune_operator.pods.leftovers import jobs_to_delete


def keep_finished(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Leave a finished run as it is until runId changes."""
    if status.phase not in FINISHED:
        return None
    refusal = run_id_refusal(observed, status)
    if refusal is None and status.run_id != observed.spec.run_id:
        return None
    due = expiry(status, observed.spec.ttl_seconds_after_finished, has_jobs=bool(observed.jobs))
    delete = stale_jobs(observed)
    if due is not None and now >= due:
        delete, due = jobs_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return JobDecision(
        status, refusal or _missing_end(observed, status), delete=delete, requeue_at=due, keeps_phase=True
    )


def _missing_end(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> Readiness | None:
    """The readiness of the run's end if the conditions do not show it; None if they do."""
    if status.phase == "Failed":
        return missing_failure(status.conditions, status.failure)
    if status.phase == "Cancelled":
        return None if missing_failure(status.conditions, None) is None else cancelled_run(observed.owner, status)
    is_stalled = any(one.type == ConditionType.STALLED and one.status == "True" for one in status.conditions)
    return succeeded_readiness(status.result) if is_stalled and status.result is not None else None
