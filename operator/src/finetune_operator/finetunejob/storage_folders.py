"""Where in the storage the runs of an object lie: each run has a folder, and these lie in one for each place.

A run's folder is chosen by its class and stays once it is trained in; a class that names another bucket or prefix moves
the next run only. What was written before is remembered, and by which class, so that the object's deletion finds it and
treats it as that class says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.finetunejob import FineTuneJobStatus, StorageFolder
from finetune_operator.core.ownership import Owner

FOLDERS_KEPT = 20
UNKNOWN_CLASS = ""
"""Of a folder that is known by a run of it only, whose class nobody wrote down."""


def with_folder(folders: Sequence[StorageFolder], run_uri: str, class_name: str) -> list[StorageFolder]:
    """The folders, and the one that holds this run's; the oldest place is forgotten where there are too many."""
    found = StorageFolder(uri=_holding(run_uri), class_name=class_name)
    if any((one.uri, one.class_name) == (found.uri, class_name) for one in folders):
        return list(folders)
    # A place is forgotten as a whole: half of what is known of it could have a folder removed that is to be retained.
    oldest = next((one.uri for one in folders if one.uri != found.uri), None)
    kept = [one for one in folders if len(folders) < FOLDERS_KEPT or one.uri != oldest]
    return [*kept, found][:FOLDERS_KEPT]


def known_folders(owner: Owner, status: FineTuneJobStatus) -> dict[str, frozenset[str]]:
    """Every folder known to hold runs of the object, and the classes that wrote there; none where nobody knows."""
    found: dict[str, set[str]] = {}
    for folder in status.storage_folders:
        found.setdefault(folder.uri, set()).add(folder.class_name)
    if status.storage_uri:
        found.setdefault(_holding(status.storage_uri), set()).add(status.class_name or UNKNOWN_CLASS)
    for run in status.history:
        if run.storage_uri:
            found.setdefault(_holding(run.storage_uri), set())
    return {uri: frozenset(found[uri] - {UNKNOWN_CLASS}) for uri in sorted(found) if _is_of(owner, uri)}


def folder_classes(folders: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The names of the classes that wrote into these."""
    return frozenset().union(*folders.values())


def _is_of(owner: Owner, folder: str) -> bool:
    """Whether this can be such a folder: a status may hold anything, and one odd URI must not keep the others."""
    bucket, *path = folder.removeprefix("s3://").split("/")
    return folder.startswith("s3://") and bool(bucket) and path[-2:] == [owner.namespace, owner.name]


def _holding(run_uri: str) -> str:
    return run_uri.rstrip("/").rpartition("/")[0]
