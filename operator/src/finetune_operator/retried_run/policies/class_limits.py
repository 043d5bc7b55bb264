"""spec.className: no try starts before there is a class that allows it."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Decision
from finetune_operator.pods.retried_job import with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS
from finetune_operator.retried_run.current_try import active_tries, current_job
from finetune_operator.retried_run.run import ObservedT, RetriedRun, Status


def wait_for_class(
    run: RetriedRun[ObservedT, Status], observed: ObservedT, status: Status, now: datetime
) -> Decision[Status] | None:
    """Start nothing that the class does not allow; a running try continues."""
    found = run.class_or_refusal(observed)
    if not isinstance(found, Readiness) or current_job(run, observed) is not None:
        return None
    # A change of a ModelDeployment that the class refers to does not wake this object.
    waits = found.reason in (Reason.WAITING_FOR_MODEL, Reason.REFERENCE_NOT_FOUND)
    again = now + timedelta(seconds=START_CHECK_SECONDS) if waits else None
    before = status.failure if run.is_same_run(observed) else None
    return Decision(
        status,
        with_previous_failure(found, before, is_bounded=True),
        delete=active_tries(run, observed),
        requeue_at=again,
        meanwhile=run.waiting,
    )
