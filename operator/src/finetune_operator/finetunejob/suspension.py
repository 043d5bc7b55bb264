"""spec.suspend: the Pods save and end; the run goes on later with a new attempt, from the newest checkpoint."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.conditions import progressing
from finetune_operator.core.plan import planned
from finetune_operator.finetunejob.attempt_records import stopped
from finetune_operator.finetunejob.concern import Step
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.stopping import (
    STOPPING_CHECK_SECONDS,
    given_up_words,
    is_quiet,
    next_look,
    strays,
    what_stops,
)


def suspension(observed: ObservedFineTuneJob, status: FineTuneJobStatus, now: datetime) -> Step:
    """Stop what runs while spec.suspend is true, and start nothing."""
    if not observed.spec.suspend:
        return status
    status = stopped(status, "Suspended", now)
    if is_quiet(observed, now):
        standing = progressing(
            Reason.SUSPENDED,
            f"spec.suspend is true; nothing runs.{given_up_words(observed, now)} Set it to false to go on.",
        )
        return planned(observed, status, "Suspended", standing, now)
    check = next_look(observed, now, now + timedelta(seconds=STOPPING_CHECK_SECONDS))
    standing = progressing(Reason.STOPPING, f"spec.suspend is true. {what_stops(observed, now)}")
    phase = status.phase or "Validating"
    return planned(observed, status, phase, standing, now, delete=strays(observed), requeue_at=check)
