"""What is reported where no plan can be made or carried out: an invalid spec, a write that the API server refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.conditions import ConditionType, KindStatus, Reason
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.core.plan import Plan, planned
from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.resources import Object
from finetune_operator.pods.start_diagnosis import refusal

_REFUSED = frozenset({400, 403, 422})
REFUSED_RETRY_SECONDS = 60


@dataclass(frozen=True)
class _Unparsed:
    """A parent whose spec does not parse: all that is known of it."""

    generation: int
    status: KindStatus


def invalid_spec_plan(before: KindStatus, parent: Object, error: ValidationError, now: datetime) -> Plan[KindStatus]:
    """A stored spec that does not parse, since it was written before a rule was added: name the field."""
    observed = _Unparsed(parent["metadata"]["generation"], before)
    readiness = stalled(Reason.INVALID_SPEC, f"The object is invalid: {problems(error)}")
    plan = planned(observed, before, None, readiness, now)
    # What was judged stays judged; its observedGeneration says of which spec.
    judged = [one for one in before.conditions if one.type == ConditionType.PASSED]
    return replace(plan, status=plan.status.model_copy(update={"conditions": [*plan.status.conditions, *judged]}))


def is_refusal(error: ApiError) -> bool:
    """Whether the API server refused a write for what it contains, so that trying it again at once is no use."""
    return error.status in _REFUSED or error.reason == NAME_CONFLICT


def refused_write_plan(before: KindStatus, parent: Object, error: ApiError, now: datetime) -> Plan[KindStatus]:
    """The API server refuses what the plan creates (quota, Pod Security, admission): report it, and keep the rest."""
    observed = _Unparsed(parent["metadata"]["generation"], before)
    found = refusal(error.message)
    reason = Reason.NAME_CONFLICT if error.reason == NAME_CONFLICT else found.reason
    message = error.message if error.reason == NAME_CONFLICT else found.message
    readiness = stalled(reason, f"{message} Tried again every minute.")
    if found.waits:
        readiness = progressing(Reason.QUEUED, readiness.message)
    return planned(observed, before, None, readiness, now)
