"""One reconciliation: read the parent, observe, plan, apply, delete, write the status once, record Events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from finetune_api.conditions import KindStatus, Reason
from finetune_operator.kube import EVENTS, ApiError, Kube, Object, Resource
from finetune_operator.plan import Plan, planned
from finetune_operator.references import ObjectKey
from finetune_operator.status import EventNote, stalled

COMPONENT = "finetune-operator"
_REFUSED = frozenset({400, 403, 422})
_REFUSED_RETRY_SECONDS = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reconciler:
    """How one kind is reconciled."""

    resource: Resource
    status: type[KindStatus]
    observe: Callable[[Kube, Object], Awaitable[Any]]
    plan: Callable[[Any, datetime], Plan[Any]]


@dataclass(frozen=True)
class _Unparsed:
    """A parent whose spec does not parse: all that is known of it."""

    generation: int
    status: KindStatus


async def reconcile(kube: Kube, reconciler: Reconciler, key: ObjectKey) -> float | None:
    """Bring one object a step further; returns in how many seconds to look again (None: when something changes).

    Raises ApiError when the API server did not do what was asked; the caller tries again later.
    """
    parent = await kube.get(reconciler.resource, key.namespace or None, key.name)
    if parent is None or "deletionTimestamp" in parent["metadata"]:
        return None  # What it owns goes by garbage collection.
    now = datetime.now(UTC)
    try:
        plan = reconciler.plan(await reconciler.observe(kube, parent), now)
    except ValidationError as error:
        plan = _invalid(reconciler, parent, error, now)
    try:
        for body in plan.create:
            await kube.create_once(body)
        for body in plan.apply:
            await kube.apply(body)
        for body in plan.merge:
            await kube.merge(body)
    except ApiError as error:
        if error.status not in _REFUSED:
            raise
        log.warning("refused", kind=parent["kind"], name=key.name, namespace=key.namespace, error=str(error))
        await _write_status(kube, parent, _refused(reconciler, parent, error, now))
        return _REFUSED_RETRY_SECONDS
    for child in plan.delete:
        await kube.delete(child.resource, child.namespace, child.name, child.uid)
    await _write_status(kube, parent, plan)
    if plan.requeue_at is None:
        return None
    return max(0.0, (plan.requeue_at - now).total_seconds())


async def _write_status(kube: Kube, parent: Object, plan: Plan[Any]) -> None:
    """Write the status when it differs, then the Events that its change calls for."""
    wire = {name: value for name, value in plan.status.to_wire().items() if value not in ([], {})}
    if wire == parent.get("status", {}):
        return
    metadata = parent["metadata"]
    identity = {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}
    await kube.apply_status(
        {"apiVersion": parent["apiVersion"], "kind": parent["kind"], "metadata": identity, "status": wire}
    )
    log.info("status", kind=parent["kind"], **identity, phase=wire.get("phase"))
    for note in plan.events:
        await _record(kube, parent, note)


async def _record(kube: Kube, parent: Object, note: EventNote) -> None:
    """Record an Event; one that can't be recorded is logged, since the condition tells the same."""
    metadata = parent["metadata"]
    moment = datetime.now(UTC)
    namespace = metadata.get("namespace", "default")
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name'][:200]}.", "namespace": namespace},
        "involvedObject": {
            "apiVersion": parent["apiVersion"],
            "kind": parent["kind"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace"),
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "lastTimestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "count": 1,
    }
    try:
        await kube.create(EVENTS, namespace, body)
    except ApiError as error:
        log.warning("event not recorded", reason=note.reason, error=str(error))


def _invalid(reconciler: Reconciler, parent: Object, error: ValidationError, now: datetime) -> Plan[KindStatus]:
    """A stored spec that does not parse (written before a rule was added): say which field."""
    problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
    before = _known_status(reconciler, parent)
    observed = _Unparsed(parent["metadata"]["generation"], before)
    return planned(observed, before, None, stalled(Reason.INVALID_SPEC, f"The object is invalid: {problems}"), now)


def _refused(reconciler: Reconciler, parent: Object, error: ApiError, now: datetime) -> Plan[KindStatus]:
    """The API server refuses what the plan makes (quota, Pod Security, admission): say so, and keep the rest."""
    before = _known_status(reconciler, parent)
    observed = _Unparsed(parent["metadata"]["generation"], before)
    message = f"The API server refuses an object of this one: {error.message} Tried again every minute."
    return planned(observed, before, None, stalled(Reason.POD_REJECTED, message), now)


def _known_status(reconciler: Reconciler, parent: Object) -> KindStatus:
    try:
        return reconciler.status.from_wire(parent.get("status", {}))
    except ValidationError:
        return reconciler.status()
