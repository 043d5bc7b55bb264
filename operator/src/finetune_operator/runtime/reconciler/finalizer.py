"""The finalizer: it is set while an object needs one, and holds a deleted object until its data is dealt with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from finetune_operator.core.kind_definition import Finalizer
from finetune_operator.core.plan import DeletionPlan, LeftBehind
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, Object
from finetune_operator.runtime.reconciler.events import record_event

log = structlog.get_logger(__name__)


async def sync_finalizer(kube: Kube, finalizer: Finalizer | None, parent: Object, observed: Any) -> Object:
    """Set or remove the finalizer of an object that is not being deleted; returns the object as it is then."""
    needed = None if finalizer is None else finalizer.is_needed(observed)
    if finalizer is None or needed is None or needed == _holds(parent, finalizer):
        return parent
    return await (kube.add_finalizer if needed else kube.remove_finalizer)(parent, finalizer.name)


async def plan_deletion(
    kube: Kube, finalizer: Finalizer | None, parent: Object, now: datetime
) -> DeletionPlan[Any] | None:
    """What to do for an object that is being deleted; None if it does not have our finalizer."""
    if finalizer is None or not _holds(parent, finalizer):
        return None
    return finalizer.plan(await finalizer.observe(kube.live, parent), now)


async def release(kube: Kube, parent: Object, finalizer: Finalizer | None, left_behind: LeftBehind | None) -> None:
    """Remove the finalizer of a deleted object, and record what it leaves behind."""
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
