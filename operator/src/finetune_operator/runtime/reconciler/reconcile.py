"""One reconciliation: read the parent, observe, plan, write what the plan says.

A crash may cut it short anywhere. Every write before the status has the same outcome when it is repeated. What is
created after it is in the status by then, so the next plan creates what is missing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from finetune_api.base import API_VERSION
from finetune_api.lifecycle import KindStatus
from finetune_operator.core.kind_definition import Kind
from finetune_operator.core.ownership import owner_key
from finetune_operator.core.plan import Child, DeletionPlan, Plan, earliest
from finetune_operator.core.references import ObjectKey
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.parsed import status_of
from finetune_operator.kube.resources import RESOURCES, Object
from finetune_operator.runtime.reconciler.events import record_event
from finetune_operator.runtime.reconciler.finalizer import plan_deletion, release, sync_finalizer
from finetune_operator.runtime.reconciler.rejections import (
    KeptChild,
    invalid_spec_plan,
    is_refusal,
    kept_child_plan,
    may_run,
    refused_retry_seconds,
    refused_write_plan,
)
from finetune_operator.runtime.reconciler.status import read_status, report_unreadable_status, wire_status, write_status

log = structlog.get_logger(__name__)

OVERDUE_SECONDS = 1.0
"""When a plan is made again that asks for a time already over: at once would keep a core busy and change nothing."""
_OUR_KINDS = {one.kind: one for one in RESOURCES if one.api_version == API_VERSION}


async def reconcile(kube: Kube, kind: Kind, key: ObjectKey) -> float | None:
    """Reconcile one object once; returns in how many seconds to do so again (None: when something changes).

    Raises ApiError when the API server did not do what was asked; the caller tries again later.
    """
    parent = await kube.get(kind.resource, key.namespace or None, key.name)
    if parent is not None and "deletionTimestamp" in parent["metadata"]:
        # It may be gone by now, and what its deletion removes is gone for good: no stale read may decide that.
        parent = await kube.live.get(kind.resource, key.namespace or None, key.name)
    if parent is None:
        kind.held.drop(key)
        for metrics in kind.metrics:
            metrics.gone(key)
        return None
    now, stored = datetime.now(UTC), parent
    parent = kind.held.over(key, stored)
    plan: Plan[Any] | None = None
    deletion: DeletionPlan[Any] | None = None
    before, unreadable = read_status(kind, parent)
    try:
        if "deletionTimestamp" not in parent["metadata"]:
            if unreadable is not None:
                await report_unreadable_status(kube, kind, key, parent, unreadable, now)
                return None
            plan, parent = await _plan(kube, kind, parent, now)
        else:
            deletion = await plan_deletion(kube, kind.finalizer, parent, now)
            if deletion is None:
                return None  # Its children are left to garbage collection.
            plan = deletion.plan
        await _write_children(kube, plan, parent, now)
    except ApiError as error:
        if not is_refusal(error, parent, now):
            raise
        log.warning("refused", kind=parent["kind"], name=key.name, namespace=key.namespace, error=str(error))
        if unreadable is None:
            recorded = before if plan is None or plan.if_refused is None else plan.if_refused
            refused = refused_write_plan(before, recorded, parent, error, now)
            await _write_or_hold_status(kube, kind, key, stored, parent, refused, now)
        return refused_retry_seconds(error)
    kept = await _delete_children(kube, plan, parent, now)
    if deletion is not None and deletion.release:
        # Its time is over: what the API server refuses to delete ends by a deadline of its own.
        await release(kube, parent, kind.finalizer, deletion.left_behind)
        kind.held.drop(key)
        return None
    if kept is not None and unreadable is None and _holds_back(kind, before, plan, kept):
        await _write_or_hold_status(kube, kind, key, stored, parent, kept_child_plan(before, parent, kept, now), now)
        return refused_retry_seconds(kept.error)
    if kept is not None:
        await record_event(kube, parent, kept.note, (kept.child.uid, kept.child.name))
    again = plan.requeue_at
    if unreadable is not None:
        await report_unreadable_status(kube, kind, key, parent, unreadable, now)
    else:
        may_forget = deletion is None and kept is None
        again = await _write_status(kube, kind, key, stored, parent, before, plan, now, may_forget=may_forget)
    if kept is not None:
        again = earliest([again, now + timedelta(seconds=refused_retry_seconds(kept.error))])
    return _seconds_until(again, now) if await _create_recorded(kube, plan, parent, now) else OVERDUE_SECONDS


async def _write_status(
    kube: Kube,
    kind: Kind,
    key: ObjectKey,
    stored: Object,
    parent: Object,
    before: KindStatus,
    plan: Plan[Any],
    now: datetime,
    *,
    may_forget: bool,
) -> datetime | None:
    """Write the plan's status, and drop a finished object that nobody reads; returns when to reconcile again."""
    is_new, due = await _write_or_hold_status(kube, kind, key, stored, parent, plan, now)
    for metrics in kind.metrics:
        metrics.written(key, before, plan.status)
    is_done = may_forget and not is_new and kind.is_finished(plan.status)
    if is_done and not await _has_unfinished_owner(kube, parent):
        kube.forget_finished(kind.resource, parent)
    return earliest([plan.requeue_at, due])


async def _delete_children(kube: Kube, plan: Plan[Any], parent: Object, now: datetime) -> KeptChild | None:
    """Delete what the plan deletes; returns a child that the API server refuses to delete, a running one first."""
    kept = [one for child in plan.delete if (one := await _delete(kube, child, parent, now)) is not None]
    return next((one for one in kept if one.may_run), kept[0] if kept else None)


async def _delete(kube: Kube, child: Child, parent: Object, now: datetime) -> KeptChild | None:
    """Delete a child, and then what only it needs; returns the first that the API server refuses to delete."""
    try:
        await kube.delete(
            child.resource, child.namespace, child.name, child.uid, dependents_first=child.dependents_first
        )
    except ApiError as error:
        if not is_refusal(error, parent, now):
            raise
        log.warning("deletion refused", kind=parent["kind"], name=parent["metadata"]["name"], error=str(error))
        # By list: the operator may not `get` Jobs, ConfigMaps or PodDisruptionBudgets.
        found = await kube.list(child.resource, child.namespace, fields={"metadata.name": child.name})
        return KeptChild(child, error, may_run=any(may_run(item) for item in found))
    for one in child.then:
        if (kept := await _delete(kube, one, parent, now)) is not None:
            return kept
    return None


def _holds_back(kind: Kind, before: KindStatus, plan: Plan[Any], kept: KeptChild) -> bool:
    """Whether nothing is recorded that would follow from the child's end, and the conditions say that it goes on.

    Not of what has ended already, nor of a run that is over, whose conditions say how: an Event tells of these once.
    """
    return kept.may_run and not (kind.is_finished(before) and kind.is_finished(plan.status))


def _seconds_until(requeue_at: datetime | None, now: datetime) -> float | None:
    if requeue_at is None:
        return None
    return OVERDUE_SECONDS if requeue_at < now else (requeue_at - now).total_seconds()


async def _write_or_hold_status(
    kube: Kube, kind: Kind, key: ObjectKey, stored: Object, parent: Object, plan: Plan[Any], now: datetime
) -> tuple[bool, datetime | None]:
    """Whether the status differs from the stored one, and when it has to be written if it is only kept in memory."""
    if plan.status_due is not None and now < plan.status_due and not plan.events:
        kind.held.hold(key, stored, wire_status(plan))
        return True, plan.status_due
    is_new = await write_status(kube, parent, plan, stored.get("status", {}))
    kind.held.drop(key)
    return is_new, None


async def _plan(kube: Kube, kind: Kind, parent: Object, now: datetime) -> tuple[Plan[Any], Object]:
    """What to do for an object that is not being deleted, by its kind's observe.py and plan.py.

    Also returns that object with its finalizer set or removed.
    """
    try:
        observed = await kind.observe(kube, parent)
        parent = await sync_finalizer(kube, kind.finalizer, parent, observed)
    except ValidationError as error:
        return invalid_spec_plan(status_of(kind.status, parent), parent, error, now), parent
    plan = kind.plan(observed, now)  # an exception of the plan is a bug, not a fault of the spec
    if kind.rests_on_absence(observed, plan):
        children = [owned.resource for owned in kind.owns]
        plan = kind.plan(await kind.observe(kube.live_for(children), parent), now)
    return plan, parent


async def _has_unfinished_owner(kube: Kube, parent: Object) -> bool:
    """Whether an owner of our kinds, until its completionTime, reads this object: if forgotten, from the API server."""
    key = owner_key(parent, _OUR_KINDS.keys())
    owner = None if key is None else await kube.get(_OUR_KINDS[key.kind], key.namespace, key.name)
    return owner is not None and (owner.get("status") or {}).get("completionTime") is None


async def _create_recorded(kube: Kube, plan: Plan[Any], parent: Object, now: datetime) -> bool:
    """Create what the status has by now. Returns whether all of it was made, so that its events will follow.

    The next plan reports what the API server refuses, and looks at what was there already.
    """
    are_made = True
    for body in plan.create_recorded:
        try:
            are_made = await kube.create_once(body) and are_made
        except ApiError as error:
            if not is_refusal(error, parent, now):
                raise
            are_made = False
    return are_made


async def _write_children(kube: Kube, plan: Plan[Any], parent: Object, now: datetime) -> None:
    refused: ApiError | None = None
    for body in plan.create:
        try:
            await kube.create_once(body)
        except ApiError as error:
            if not plan.creates_each or not is_refusal(error, parent, now):
                raise
            refused = refused or error
    if refused is not None:
        raise refused
    for body in plan.merge:
        await kube.merge(body)
    for body in plan.apply:
        await kube.apply(body)
