"""The `delete` command: deletes the stored objects of a deleted FineTuneJob's runs, and no others."""

from __future__ import annotations

import sys

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import DeleteRun, JobIdentity, is_run_folder
from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

ROUNDS = 5
"""How often the folder is listed: a process that was just killed may have had requests in flight."""


def delete(run: DeleteRun) -> None:
    """Delete everything in the object's run folders below each of the given folders.

    Raises DiagnosedError: InvalidSpec for a folder that is not the job's own, or one of the storage's errors.
    """
    storage = Storage(run.storage)
    for uri in run.folder_uris:
        folder = parse_s3(uri)
        if folder.key.split("/")[-2:] != [run.job.namespace, run.job.name]:
            raise DiagnosedError(
                Reason.INVALID_SPEC,
                f"{uri} is not the folder of {run.job.namespace}/{run.job.name}: nothing is removed.",
            )
        delete_runs(storage, folder, run.job)


def delete_runs(storage: Storage, folder: StorageLocation, job: JobIdentity) -> None:
    """Delete the runs of one object below the folder that all objects of its name share."""
    removed = 0
    for _ in range(ROUNDS):
        found = _paths(storage, folder, job)
        if not found:
            sys.stdout.write(f"{removed} objects removed from {folder.uri}; nothing of {job.uid} is left.\n")
            return
        with log_progress(f"removing {len(found)} objects from {folder.uri}"):
            storage.abort_uploads(folder, lambda path: is_run_folder(path.partition("/")[0], job.uid))
            storage.delete(folder.join(path) for path in found)
        removed += len(found)
    raise DiagnosedError(
        Reason.FAILED,
        f"Something still writes below {folder.uri}, most recently {found[0]}: {removed} objects were removed, but "
        "new ones keep appearing. Stop what writes there.",
        retryable=True,
    )


def _paths(storage: Storage, folder: StorageLocation, job: JobIdentity) -> list[str]:
    """The objects below `folder` that belong to runs of this object; none if the bucket no longer exists."""
    try:
        found = storage.list_objects(folder)
    except DiagnosedError as error:
        if error.failure.reason is Reason.BUCKET_NOT_FOUND:
            return []
        raise
    return [item.path for item in found if is_run_folder(item.path.partition("/")[0], job.uid)]
