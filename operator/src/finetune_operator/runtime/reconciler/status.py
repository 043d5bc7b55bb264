"""Reading an object's status, and writing it, with the Events about the change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from pydantic import BaseModel

from finetune_api.base import whole_seconds
from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.lifecycle import KindStatus, UnreadableStatusError
from finetune_operator.core.conditions import EventNote
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.managed_fields import has_only_our_status
from finetune_operator.core.plan import Plan
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.parsed import status_of
from finetune_operator.kube.resources import Object
from finetune_operator.runtime.reconciler.events import record_event

log = structlog.get_logger(__name__)


def read_status(kind: Kind, parent: Object) -> tuple[KindStatus, UnreadableStatusError | None]:
    """The status as it is stored; or an empty one, and why it can't be read."""
    try:
        return status_of(kind.status, parent), None
    except UnreadableStatusError as error:
        return kind.status(), error


def wire_status(plan: Plan[Any]) -> Object:
    """The plan's status as it is stored; what is empty is left out, unless another version wrote it."""
    unknown = plan.status.model_extra or {}
    wire = _without_empty_maps(plan.status, plan.status.to_wire())
    return {name: value for name, value in wire.items() if name in unknown or value not in ([], {})}


def _without_empty_maps(model: BaseModel, wire: Object) -> Object:
    """The API server makes null of a map that an apply empties, and then refuses the null."""
    kept = dict(wire)
    for name, field in type(model).model_fields.items():
        known, alias = getattr(model, name), field.alias or name
        if known == {} and not field.is_required():
            kept.pop(alias, None)
        elif isinstance(known, BaseModel) and alias in kept:
            kept[alias] = _without_empty_maps(known, kept[alias])
    return kept


async def write_status(kube: Kube, parent: Object, plan: Plan[Any], stored: Object) -> bool:
    """If the status is not the stored one, record the Events about the change, and then write it. Returns whether.

    In this order, and with names that follow from the plan's input, no Event is lost and none is recorded twice if the
    operator is killed in between.
    """
    wire = wire_status(plan)
    if wire == stored:
        return False
    metadata = parent["metadata"]
    for position, note in enumerate(plan.events):
        await record_event(kube, parent, note, cause=(metadata["uid"], metadata["resourceVersion"], position))
    # An apply removes only fields that no other client has written to.
    write = kube.apply_status if has_only_our_status(parent) else kube.replace_status
    await write(_status_body(parent, wire))
    identity = {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}
    log.info("status", kind=parent["kind"], **identity, phase=wire.get("phase"))
    return True


async def report_unreadable_status(
    kube: Kube, kind: Kind, key: ObjectKey, parent: Object, error: UnreadableStatusError, now: datetime
) -> None:
    """Leave another version's status as it is, except for the condition that says why nothing is done."""
    metadata, kept = parent["metadata"], (parent.get("status") or {}).get("conditions") or []
    message = (
        f"Another version of the operator wrote a status that this one can't read: {error}. Nothing is changed and "
        f"nothing starts. Run a version that can read it, or {error.way_out} (kubectl edit --subresource=status)."
    )
    old: Object = next((one for one in kept if one.get("type") == ConditionType.STALLED), {})
    found = Condition(
        type=ConditionType.STALLED,
        status="True",
        reason=Reason.STATUS_UNREADABLE,
        message=message[:4096],
        observed_generation=metadata["generation"],
        last_transition_time=whole_seconds(now),
    )
    wire = found.to_wire()
    if old.get("status") == "True" and old.get("lastTransitionTime"):
        wire["lastTransitionTime"] = old["lastTransitionTime"]
    shown = kind.status().model_copy(update={"conditions": [found]})
    for metrics in kind.metrics:
        metrics.written(key, shown, shown)
    if {**old, **wire} == old:
        return
    note = EventNote("Warning", Reason.STATUS_UNREADABLE, message)
    await record_event(kube, parent, note, cause=(metadata["uid"], metadata["resourceVersion"]))
    await kube.apply_conditions(_status_body(parent, {"conditions": [wire]}))


def _status_body(parent: Object, wire: Object) -> Object:
    """A status to be applied to the object as it was read."""
    names = ("name", "namespace", "uid", "resourceVersion")
    metadata = {name: parent["metadata"][name] for name in names if name in parent["metadata"]}
    return {"apiVersion": parent["apiVersion"], "kind": parent["kind"], "metadata": metadata, "status": wire}
