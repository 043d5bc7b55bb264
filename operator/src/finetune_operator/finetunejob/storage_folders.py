"""Where in the storage the runs of an object lie: each run has a folder, and these lie in one for each place.

A run's folder is chosen by its class and stays once it is trained in; a class that names another bucket or prefix moves
the next run only. What was written before is remembered, so that the object's deletion finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.ownership import Owner

FOLDERS_KEPT = 20


def with_folder(folders: Sequence[str], run_uri: str) -> list[str]:
    """The folders, and the one that holds this run's."""
    holds = _holding(run_uri)
    return list(folders) if holds in folders else [*folders, holds][-FOLDERS_KEPT:]


def known_folders(owner: Owner, status: FineTuneJobStatus) -> list[str]:
    """Every folder known to hold runs of the object. Older versions remembered them only by their runs."""
    runs = [status.storage_uri, *(run.storage_uri for run in status.history)]
    found = {*status.storage_folders, *(_holding(uri) for uri in runs if uri)}
    return sorted(folder for folder in found if _is_of(owner, folder))


def _is_of(owner: Owner, folder: str) -> bool:
    """Whether this can be such a folder: a status may hold anything, and one odd URI must not keep the others."""
    bucket, *path = folder.removeprefix("s3://").split("/")
    return folder.startswith("s3://") and bool(bucket) and path[-2:] == [owner.namespace, owner.name]


def _holding(run_uri: str) -> str:
    return run_uri.rstrip("/").rpartition("/")[0]
