"""The `delete` command: removes the objects of a deleted FineTuneJob's runs from the storage, and no others."""

from __future__ import annotations

import sys

from finetune_api.conditions import Reason
from finetune_api.run import DeleteRun, JobIdentity, is_run_folder
from finetune_api.sources import S3Location, parse_s3
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.storage import Storage

ROUNDS = 5
"""How often the folder is looked through: a process that was just killed may have had requests on their way."""


def delete(run: DeleteRun) -> None:
    """Remove everything below the folders of the object's runs, in each of the given places.

    Raises DiagnosedError: InvalidSpec for a place that is not the job's own, or one of the storage's.
    """
    storage = Storage(run.storage)
    for uri in run.folder_uris:
        place = parse_s3(uri)
        if place.key.split("/")[-2:] != [run.job.namespace, run.job.name]:
            raise DiagnosedError(
                Reason.INVALID_SPEC,
                f"{uri} is not the folder of {run.job.namespace}/{run.job.name}: nothing is removed.",
            )
        delete_runs(storage, place, run.job)


def delete_runs(storage: Storage, place: S3Location, job: JobIdentity) -> None:
    """Remove the runs of one object below the folder that all objects of its name share."""
    removed = 0
    for _ in range(ROUNDS):
        found = _paths(storage, place, job)
        if not found:
            sys.stdout.write(f"{removed} objects removed from {place.uri}; nothing of {job.uid} is left.\n")
            return
        with log_progress(f"removing {len(found)} objects from {place.uri}"):
            storage.abort_uploads(place, lambda path: is_run_folder(path.partition("/")[0], job.uid))
            storage.delete(place.join(path) for path in found)
        removed += len(found)
    raise DiagnosedError(
        Reason.FAILED,
        f"Something still writes below {place.uri}, last {found[0]}: {removed} objects were removed, and more came. "
        "Stop what writes there.",
        retryable=True,
    )


def _paths(storage: Storage, place: S3Location, job: JobIdentity) -> list[str]:
    """Of everything below `place`, what lies in a run's folder of this object; none where the bucket itself is gone."""
    try:
        found = storage.list_objects(place)
    except DiagnosedError as error:
        if error.failure.reason is Reason.BUCKET_NOT_FOUND:
            return []
        raise
    return [item.path for item in found if is_run_folder(item.path.partition("/")[0], job.uid)]
