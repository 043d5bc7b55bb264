"""One reconciliation: read the parent, observe, plan, write what the plan says, the status last.

A crash may cut it short anywhere: every write before the status has the same outcome when it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from finetune_api.base import problems, whole_seconds
from finetune_api.conditions import Condition, ConditionType, KindStatus, Reason, UnreadableStatusError
from finetune_operator.core.conditions import EventNote, progressing, stalled
from finetune_operator.core.kind_definition import Finalizer, Kind
from finetune_operator.core.managed_fields import has_only_our_status
from finetune_operator.core.plan import DeletionPlan, LeftBehind, Plan, planned
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import NAME_CONFLICT, ApiError
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, Object
from finetune_operator.pods.start_diagnosis import refusal
from finetune_operator.runtime.events import record_event

_REFUSED = frozenset({400, 403, 422})
_REFUSED_RETRY_SECONDS = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Unparsed:
    """A parent whose spec does not parse: all that is known of it."""

    generation: int
    status: KindStatus


async def reconcile(kube: Kube, kind: Kind, key: ObjectKey) -> float | None:
    """Reconcile one object once; returns in how many seconds to do so again (None: when something changes).

    Raises ApiError when the API server did not do what was asked; the caller tries again later.
    """
    parent = await kube.get(kind.resource, key.namespace or None, key.name)
    if parent is not None and "deletionTimestamp" in parent["metadata"]:
        # It may be gone by now, and what its deletion removes is gone for good: no stale read may decide that.
        parent = await kube.live.get(kind.resource, key.namespace or None, key.name)
    if parent is None:
        for metrics in kind.metrics:
            metrics.gone(key)
        return None
    now, deletion = datetime.now(UTC), None
    before, unreadable = _read_status(kind, parent)
    try:
        if "deletionTimestamp" not in parent["metadata"]:
            if unreadable is not None:
                await _report_unreadable(kube, kind, key, parent, unreadable, now)
                return None
            plan, parent = await _plan(kube, kind, parent, now)
        else:
            deletion = await _deletion(kube, kind.finalizer, parent, now)
            if deletion is None:
                return None  # Its children are left to garbage collection.
            plan = deletion.plan
        for body in plan.create:
            await kube.create_once(body)
        for body in plan.merge:
            await kube.merge(body)
        for body in plan.apply:
            await kube.apply(body)
    except ApiError as error:
        if error.status not in _REFUSED and error.reason != NAME_CONFLICT:
            raise
        log.warning("refused", kind=parent["kind"], name=key.name, namespace=key.namespace, error=str(error))
        if unreadable is None:
            await _write_status(kube, parent, _refused(before, parent, error, now))
        return _REFUSED_RETRY_SECONDS
    for child in plan.delete:
        await kube.delete(
            child.resource, child.namespace, child.name, child.uid, dependents_first=child.dependents_first
        )
    if deletion is not None and deletion.release:
        await _release(kube, parent, kind.finalizer, deletion.left_behind)
        return None
    if unreadable is not None:
        await _report_unreadable(kube, kind, key, parent, unreadable, now)
    else:
        is_new = await _write_status(kube, parent, plan)
        for metrics in kind.metrics:
            metrics.written(key, before, plan.status)
        if deletion is None and not is_new and kind.is_finished(plan.status):
            kube.forget_finished(kind.resource, parent)
    if plan.requeue_at is None:
        return None
    return max(0.0, (plan.requeue_at - now).total_seconds())


async def _plan(kube: Kube, kind: Kind, parent: Object, now: datetime) -> tuple[Plan[Any], Object]:
    """What to do for an object that is not being deleted, and that object with its finalizer set or removed."""
    finalizer = kind.finalizer
    try:
        observed = await kind.observe(kube, parent)
        if finalizer is not None:
            needed = finalizer.is_needed(observed)
            if needed is not None and needed != _holds(parent, finalizer):
                parent = await (kube.add_finalizer if needed else kube.remove_finalizer)(parent, finalizer.name)
    except ValidationError as error:
        return _invalid(kind.status.read(parent.get("status")), parent, error, now), parent
    return kind.plan(observed, now), parent  # an exception of the plan is a bug, not a fault of the spec


async def _deletion(kube: Kube, finalizer: Finalizer | None, parent: Object, now: datetime) -> DeletionPlan[Any] | None:
    """What to do for an object that is being deleted; None when it holds no finalizer of ours."""
    if finalizer is None or not _holds(parent, finalizer):
        return None
    return finalizer.plan(await finalizer.observe(kube.live, parent), now)


async def _release(kube: Kube, parent: Object, finalizer: Finalizer | None, left_behind: LeftBehind | None) -> None:
    """Release a deleted object, and record what it leaves behind."""
    assert finalizer is not None, "only an object with a finalizer gets here"
    if left_behind is not None:
        about = await kube.get(FINE_TUNE_CLASSES, None, left_behind.class_name) or {
            "apiVersion": FINE_TUNE_CLASSES.api_version,
            "kind": FINE_TUNE_CLASSES.kind,
            "metadata": {"name": left_behind.class_name},
        }
        await record_event(kube, about, left_behind.note, cause=(parent["metadata"]["uid"],))
    await kube.remove_finalizer(parent, finalizer.name)
    identity = {name: parent["metadata"][name] for name in ("name", "namespace", "uid")}
    log.info("released", kind=parent["kind"], **identity, left_behind=left_behind.note.message if left_behind else None)


def _holds(parent: Object, finalizer: Finalizer) -> bool:
    return finalizer.name in parent["metadata"].get("finalizers", ())


async def _write_status(kube: Kube, parent: Object, plan: Plan[Any]) -> bool:
    """If the status differs, record the Events about the change, and then write it. Returns whether it differed.

    In this order, and with names that follow from the plan's input, no Event is lost and none is recorded twice if the
    operator is killed in between.
    """
    unknown = plan.status.model_extra or {}
    wire = {name: value for name, value in plan.status.to_wire().items() if name in unknown or value not in ([], {})}
    if wire == parent.get("status", {}):
        return False
    metadata = parent["metadata"]
    for position, note in enumerate(plan.events):
        await record_event(kube, parent, note, cause=(metadata["uid"], metadata["resourceVersion"], position))
    # An apply removes only fields that nobody else has written to.
    write = kube.apply_status if has_only_our_status(parent) else kube.replace_status
    await write(_status_body(parent, wire))
    identity = {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}
    log.info("status", kind=parent["kind"], **identity, phase=wire.get("phase"))
    return True


def _invalid(before: KindStatus, parent: Object, error: ValidationError, now: datetime) -> Plan[KindStatus]:
    """A stored spec that does not parse (written before a rule was added): say which field."""
    observed = _Unparsed(parent["metadata"]["generation"], before)
    readiness = stalled(Reason.INVALID_SPEC, f"The object is invalid: {problems(error)}")
    plan = planned(observed, before, None, readiness, now)
    # What was judged stays judged; its observedGeneration says of which spec.
    judged = [one for one in before.conditions if one.type == ConditionType.PASSED]
    return replace(plan, status=plan.status.model_copy(update={"conditions": [*plan.status.conditions, *judged]}))


def _refused(before: KindStatus, parent: Object, error: ApiError, now: datetime) -> Plan[KindStatus]:
    """The API server refuses what the plan creates (quota, Pod Security, admission): report it, and keep the rest."""
    observed = _Unparsed(parent["metadata"]["generation"], before)
    found = refusal(error.message)
    reason = Reason.NAME_CONFLICT if error.reason == NAME_CONFLICT else found.reason
    message = error.message if error.reason == NAME_CONFLICT else found.message
    readiness = stalled(reason, f"{message} Tried again every minute.")
    if found.waits:
        readiness = progressing(Reason.QUEUED, readiness.message)
    return planned(observed, before, None, readiness, now)


def _read_status(kind: Kind, parent: Object) -> tuple[KindStatus, UnreadableStatusError | None]:
    """The status as it is stored; or an empty one, and why it can't be read."""
    try:
        return kind.status.read(parent.get("status")), None
    except UnreadableStatusError as error:
        return kind.status(), error


async def _report_unreadable(
    kube: Kube, kind: Kind, key: ObjectKey, parent: Object, error: UnreadableStatusError, now: datetime
) -> None:
    """Another version's status stays as it is, except for the condition that says why nothing is done."""
    metadata, kept = parent["metadata"], (parent.get("status") or {}).get("conditions") or []
    message = (
        f"Another version of the operator wrote a status that this one can't read: {error}. Nothing is changed and "
        "nothing starts. Run a version that can read it, or remove that field (kubectl edit --subresource=status)."
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
