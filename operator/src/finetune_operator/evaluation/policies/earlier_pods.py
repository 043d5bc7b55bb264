"""No try starts while Pods of an earlier one are running: both would write the same report."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, ObservedEvaluation
from finetune_operator.pods.leftovers import disowned_message, orphan_message, orphans, stuck_job_message, stuck_jobs
from finetune_operator.pods.observed import is_lost
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def wait_for_earlier_pods(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Start nothing until Pods that are being deleted, or that the operator no longer owns, have ended."""
    message = still_there(observed, now)
    if message is None:
        return None
    stuck = stuck_jobs(observed.jobs, observed.pods)
    return EvaluationDecision(
        status.model_copy(update={"job_name": observed.status.job_name}),
        with_previous_failure(progressing(Reason.RETRYING, message), status.failure, is_bounded=True),
        delete=tries_to_delete(observed.owner.namespace, stuck, observed.pods),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.RETRYING,
    )


def still_there(observed: ObservedEvaluation, now: datetime) -> str | None:
    """What has not ended yet; None if everything has."""
    disowned, left = [job for job in observed.disowned if job.is_active], orphans(observed.pods)
    if disowned:
        return disowned_message(disowned[0])
    if left:
        return orphan_message(left, observed.owner.namespace)
    if stuck := stuck_jobs(observed.jobs, observed.pods):
        return stuck_job_message(stuck[0])
    kept = {"", *(job.uid for job in observed.jobs if not job.deleting)}
    ending = [pod for pod in observed.pods if pod.job_uid not in kept and not pod.is_terminal and not is_lost(pod, now)]
    return f"Waiting for Pod {min(pod.name for pod in ending)} of an earlier try to end." if ending else None
