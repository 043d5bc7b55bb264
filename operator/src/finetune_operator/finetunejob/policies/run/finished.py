"""The phases Succeeded and Failed: a run that is over stays as it is until runId changes; what still runs is ended."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.failed_condition import missing_failure
from finetune_operator.finetunejob.attempt_state import FINISHED
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.policies.attempts.result import succeeded_readiness
from finetune_operator.finetunejob.policies.decision import JobDecision
from finetune_operator.finetunejob.policies.run.run_id import run_id_refusal
from finetune_operator.finetunejob.policies.run.ttl_seconds_after_finished import expiry
from finetune_operator.finetunejob.stopping import stale_jobs
from finetune_operator.pods.builders import jobs_to_delete


def keep_finished(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> JobDecision | None:
    """Leave a finished run as it is until runId changes."""
    if status.phase not in FINISHED:
        return None
    refusal = run_id_refusal(observed, status)
    if refusal is None and status.run_id != observed.spec.run_id:
        return None
    delete, due = stale_jobs(observed), expiry(observed, status)
    if due is not None and now >= due:
        delete, due = jobs_to_delete(observed.owner.namespace, observed.jobs, observed.pods), None
    return JobDecision(status, refusal or _missing_end(status), delete=delete, requeue_at=due, keeps_phase=True)


def _missing_end(status: FineTuneJobStatus) -> Readiness | None:
    """How the run ended, where the conditions say something else; None where they say it."""
    if status.phase == "Failed":
        return missing_failure(status.conditions, status.failure)
    is_stalled = any(one.type == ConditionType.STALLED and one.status == "True" for one in status.conditions)
    return succeeded_readiness(status.result) if is_stalled and status.result is not None else None
