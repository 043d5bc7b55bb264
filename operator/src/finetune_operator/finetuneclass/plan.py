"""FineTuneClass: nothing to run; its status says whether it can be used."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import FineTuneClassStatus
from finetune_operator.core.conditions import ready, stalled
from finetune_operator.core.plan import Plan, planned
from finetune_operator.finetuneclass.observed import ObservedFineTuneClass


def plan(observed: ObservedFineTuneClass, now: datetime) -> Plan[FineTuneClassStatus]:
    """Ready when it parses."""
    readiness = ready(Reason.VALID, "Jobs may use this class.")
    if observed.error is not None:
        readiness = stalled(Reason.INVALID_SPEC, observed.error)
    return planned(observed, observed.status, None, readiness, now)
