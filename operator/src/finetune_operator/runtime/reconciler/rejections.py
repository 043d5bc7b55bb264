"""What is reported where no plan can be made or carried out: an invalid spec, a write that the API server refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.conditions import ConditionType, Reason
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.conditions import EventNote, Readiness, progressing, sentence, stalled
from finetune_operator.core.plan import Child, Plan, planned
from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import parse_time
from finetune_operator.pods.start_diagnosis import PATIENCE_SECONDS, refusal

_REFUSED = frozenset({400, 403, 422})
_NO_DEFAULT_ACCOUNT = 'serviceaccount "default" not found'
_RUN_NOTHING = ("Service", "ConfigMap", "PodDisruptionBudget")
_WITHOUT_PODS = (*_RUN_NOTHING, "FineTuneJob", "Evaluation")
REFUSED_RETRY_SECONDS = 60
OUTAGE_RETRY_SECONDS = PATIENCE_SECONDS
_WEBHOOK_OUTAGE = "failed calling webhook"
"""In a 500: the webhook does not answer, so the API server refuses what it would have to judge (failurePolicy)."""


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
    # A verdict stays; its observedGeneration says which spec it is about.
    judged = [one for one in before.conditions if one.type == ConditionType.PASSED]
    return replace(plan, status=plan.status.model_copy(update={"conditions": [*plan.status.conditions, *judged]}))


def is_refusal(error: ApiError, parent: Object, now: datetime) -> bool:
    """Whether the API server refused a write for its content, so that an immediate retry is useless.

    A new namespace gets its default service account a moment later, maybe after the object was created.
    """
    if error.reason == NAME_CONFLICT or error.is_denied or _is_outage(error):
        return True
    created = parent["metadata"].get("creationTimestamp")
    is_new = created is not None and now < parse_time(created) + timedelta(seconds=PATIENCE_SECONDS)
    return error.status in _REFUSED and not (is_new and _NO_DEFAULT_ACCOUNT in error.message)


def refused_retry_seconds(error: ApiError) -> int:
    """When what the API server refused is tried again."""
    return OUTAGE_RETRY_SECONDS if _is_outage(error) else REFUSED_RETRY_SECONDS


def refused_write_plan(
    before: KindStatus, recorded: KindStatus, parent: Object, error: ApiError, now: datetime
) -> Plan[KindStatus]:
    """The API server refuses what the plan creates (quota, Pod Security, admission): report it, and keep the rest.

    `recorded`: the status, without conditions about this; `before`: as it is stored.
    """
    observed = _Unparsed(parent["metadata"]["generation"], before)
    found = refusal(error.message, retried="")
    reason = Reason.NAME_CONFLICT if error.reason == NAME_CONFLICT else found.reason
    if reason == Reason.POD_REJECTED and error.written_kind in _WITHOUT_PODS:
        reason = Reason.OBJECT_REJECTED
    message = error.message if error.reason == NAME_CONFLICT else found.message
    readiness = _refused(before, reason, message, error)
    if found.waits and not _is_outage(error):
        readiness = progressing(Reason.QUEUED, readiness.message)
    return planned(observed, recorded, None, readiness, now)


@dataclass(frozen=True)
class KeptChild:
    """A child that is no longer needed, and that the API server refuses to delete."""

    child: Child
    error: ApiError
    may_run: bool

    @property
    def message(self) -> str:
        runs = ", which may still run" if self.may_run else ""
        return (
            f"The API server refuses to delete {self.child.resource.kind} {self.child.name}{runs}: "
            f"{sentence(self.error.message)} Change what rejects it (a webhook, a policy), or delete it yourself."
        )

    @property
    def note(self) -> EventNote:
        return EventNote("Warning", Reason.OBJECT_REJECTED, self.message)


def may_run(item: Object) -> bool:
    """Whether a child may still have running Pods."""
    status = item.get("status", {})
    if item["kind"] == "Pod":
        return status.get("phase") not in ("Succeeded", "Failed")
    if item["kind"] == "Job":
        ended = ("Complete", "Failed")
        return not any(one["type"] in ended and one["status"] == "True" for one in status.get("conditions", []))
    return item["kind"] not in _RUN_NOTHING


def kept_child_plan(before: KindStatus, parent: Object, kept: KeptChild, now: datetime) -> Plan[KindStatus]:
    """Nothing is recorded that would follow from the child's end: report that it goes on, and keep the rest."""
    observed = _Unparsed(parent["metadata"]["generation"], before)
    return planned(observed, before, None, _refused(before, Reason.OBJECT_REJECTED, kept.message, kept.error), now)


def _refused(before: KindStatus, reason: Reason, message: str, error: ApiError) -> Readiness:
    if not _is_outage(error):
        return stalled(reason, f"{message} Tried again every minute.")
    message = f"{message} Tried again every {OUTAGE_RETRY_SECONDS} seconds."
    # It may just be restarting: Stalled where the try before failed so, too.
    lasts = any(one.type == ConditionType.READY and one.reason == reason for one in before.conditions)
    return stalled(reason, message) if lasts else progressing(reason, message)


def _is_outage(error: ApiError) -> bool:
    """Whether a webhook does not answer."""
    return error.status == 500 and _WEBHOOK_OUTAGE in error.message
