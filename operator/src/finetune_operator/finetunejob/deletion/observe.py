"""Reads everything that the deletion of a FineTuneJob depends on, once."""

from __future__ import annotations

from typing import Any

import structlog
from pydantic import ValidationError

from finetune_api.base import LINE_LENGTH
from finetune_api.finetunejob import FineTuneJobStatus, StorageFolder
from finetune_operator.core.ownership import owner_of
from finetune_operator.finetuneclass.observe import observe_class, observe_classes
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunejob.attempt_state import newest_job, running_jobs
from finetune_operator.finetunejob.deletion.observed import ObservedDeletion
from finetune_operator.finetunejob.observe import observe_children
from finetune_operator.finetunejob.storage_folders import (
    FOLDERS_KEPT,
    UNKNOWN_CLASS,
    folder_classes,
    known_folders,
    with_folder,
)
from finetune_operator.kube.errors import ApiError
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import NAMESPACES, Object
from finetune_operator.pods.observed import parse_time, pod_view

log = structlog.get_logger(__name__)


async def observe(reader: Reader, parent: Object, *, trainer_image: str | None) -> ObservedDeletion:
    """Read everything that the deletion depends on."""
    owner = owner_of(parent)
    try:
        status = FineTuneJobStatus.from_another_version(parent.get("status", {}))
    except ValidationError:
        status = _salvaged(parent["status"])
    # A run that its class has kept from starting has stored nothing; the previous run has.
    last = status.storage_folders[-1].class_name if status.storage_folders else None
    class_name = status.class_name or last or parent["spec"].get("className")
    class_ = await observe_class(reader, class_name, trainer_image)
    if class_name is None and isinstance(class_, ResolvedClass):
        class_name = class_.name
    others = folder_classes(known_folders(owner, status)) - {class_name}
    controllers, running = (class_.uid,) if isinstance(class_, ResolvedClass) else (), running_jobs(status)
    children = await observe_children(reader, owner, newest_job(status), *controllers, running=running)
    return ObservedDeletion(
        owner=owner,
        generation=parent["metadata"]["generation"],
        status=status,
        class_name=class_name,
        class_=class_,
        other_classes=await observe_classes(reader, others, trainer_image),
        deleted=parse_time(parent["metadata"]["deletionTimestamp"]),
        namespace_ends=await _ends(reader, owner.namespace),
        jobs=children.jobs,
        pods=tuple(pod_view(item) for item in children.pods),
        disowned=children.disowned,
    )


def _salvaged(wire: Object) -> FineTuneJobStatus:
    """What an unreadable status says about the folders of its runs, so that nothing is left behind unreported."""
    class_name, run_id = _line(wire.get("className")), _line(wire.get("runId"))
    folders = [folder for folder in map(_folder, _list(wire.get("storageFolders"))) if folder is not None]
    status = FineTuneJobStatus(class_name=class_name, run_id=run_id)
    if wire.get("moreStorageFolders") is not None or len(folders) > FOLDERS_KEPT:
        status = status.model_copy(update={"more_storage_folders": True})
    status = status.model_copy(update={"storage_folders": folders[:FOLDERS_KEPT]})
    runs = [run for run in _list(wire.get("history")) if isinstance(run, dict)]
    named = [(_line(wire.get("storageUri")), class_name or UNKNOWN_CLASS)]
    for uri, name in [*named, *((_line(run.get("storageUri")), UNKNOWN_CLASS) for run in runs)]:
        status = with_folder(status, uri, name) if uri is not None else status
    return status


def _folder(value: object) -> StorageFolder | None:
    """A recorded folder; a plain URI has no known class."""
    fields = value if isinstance(value, dict) else {"uri": value}
    uri, class_name = _line(fields.get("uri")), _line(fields.get("className"))
    if uri is None:
        return None
    return StorageFolder(uri=uri, class_name=class_name or UNKNOWN_CLASS, endpoint=_line(fields.get("endpoint")))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _line(value: object) -> str | None:
    """The value if it is a string that this version could have written."""
    return value if isinstance(value, str) and len(value) <= LINE_LENGTH else None


async def _ends(reader: Reader, name: str) -> bool:
    try:
        namespace = await reader.get(NAMESPACES, None, name)
    except ApiError as error:
        if error.status != 403:
            raise
        # Without this permission, deleting the storage is given up only after STORAGE_DEADLINE_SECONDS.
        log.warning("may not read the namespace", namespace=name, error=str(error))
        return False
    return namespace is None or "deletionTimestamp" in namespace["metadata"]
