"""FineTuneClass: nothing to run; its status says whether it can be used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import FineTuneClassSpec, FineTuneClassStatus
from finetune_operator.core.conditions import ready, stalled
from finetune_operator.core.plan import Plan, planned
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import Object


@dataclass(frozen=True)
class ObservedFineTuneClass:
    """The class alone; `error` says what does not parse."""

    generation: int
    status: FineTuneClassStatus
    error: str | None


async def observe(kube: Kube, parent: Object) -> ObservedFineTuneClass:
    """Parse the class."""
    error = None
    try:
        FineTuneClassSpec.from_wire(parent["spec"])
    except ValidationError as invalid:
        error = str(invalid)
    status = FineTuneClassStatus.read(parent.get("status"))
    return ObservedFineTuneClass(parent["metadata"]["generation"], status, error)


def plan(observed: ObservedFineTuneClass, now: datetime) -> Plan[FineTuneClassStatus]:
    """Ready when it parses."""
    standing = ready(Reason.VALID, "Jobs may use this class.")
    if observed.error is not None:
        standing = stalled(Reason.INVALID_SPEC, observed.error)
    return planned(observed, observed.status, None, standing, now)
