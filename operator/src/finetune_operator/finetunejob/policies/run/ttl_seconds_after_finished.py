"""spec.ttlSecondsAfterFinished: the Jobs of a run go that long after its end, and their Pods with them."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.finetunejob.observed import ObservedFineTuneJob


def expiry(observed: ObservedFineTuneJob, status: FineTuneJobStatus) -> datetime | None:
    """When the Jobs of a finished run are to be deleted; None: never, or they are gone."""
    ttl = observed.spec.ttl_seconds_after_finished
    if ttl is None or status.completion_time is None or not observed.jobs:
        return None
    return status.completion_time + timedelta(seconds=ttl)
