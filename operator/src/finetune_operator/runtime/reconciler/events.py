"""Events about objects: recorded once for each cause, and never waited for."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import structlog

from finetune_operator.core.conditions import EventNote
from finetune_operator.kube.client import Kube
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.resources import Object

COMPONENT = "finetune-operator"
_FINAL = frozenset({400, 403, 404, 409, 422})
EVENT_PAUSES = (0.2, 1.0)
EVENT_SECONDS = 10.0
"""Events may be kept in a store of their own: its outage must not keep a status from being written."""

log = structlog.get_logger(__name__)


async def record_event(kube: Kube, about: Object, note: EventNote, cause: tuple[object, ...]) -> None:
    """Record an Event, once for each cause. One that can't be recorded is logged: the condition says the same."""
    metadata = about["metadata"]
    digest = hashlib.sha256(repr((note.reason, *cause)).encode()).hexdigest()[:16]
    moment = datetime.now(UTC)
    namespace = metadata.get("namespace", "default")
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": metadata["name"],
            **{name: metadata[name] for name in ("namespace", "uid", "resourceVersion") if name in metadata},
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
        async with asyncio.timeout(EVENT_SECONDS):
            await _create_event(kube, body)
    except (ApiError, TimeoutError) as error:
        log.warning("event not recorded", reason=note.reason, error=str(error) or "timed out")


async def _create_event(kube: Kube, body: Object) -> None:
    """Nothing retries an Event later: it is tried a few times now, or dropped."""
    for pause in EVENT_PAUSES:
        try:
            await kube.create_once(body)
        except ApiError as error:
            if error.status in _FINAL:
                raise
            await asyncio.sleep(pause)
        else:
            return
    await kube.create_once(body)
