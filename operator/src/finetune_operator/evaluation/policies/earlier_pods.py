"""No try starts beside Pods of an earlier one that nobody ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.policies.decision import EvaluationDecision
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS, disowned_message, orphan_message, orphans


def wait_for_earlier_pods(
    observed: ObservedEvaluation, status: EvaluationStatus, now: datetime
) -> EvaluationDecision | None:
    """Start nothing before somebody has ended what the operator has no hold of any more."""
    disowned, left = [job for job in observed.disowned if job.is_active], orphans(observed.pods)
    if not disowned and not left:
        return None
    return EvaluationDecision(
        status.model_copy(update={"job_name": observed.status.job_name}),
        progressing(Reason.RETRYING, disowned_message(disowned[0]) if disowned else orphan_message(left)),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
    )
