"""Reads a split of a Dataset's revision: its digest pins `revision.json`, which has the digest of each split's file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api.base import NEWER_FORMAT
from finetune_api.conditions import Reason
from finetune_api.dataset import REVISION_NAME, RevisionContent
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.data.read.data_files import DataFile
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import MismatchError, Storage


@dataclass(frozen=True)
class RevisionSplit:
    """A split on the local disk, and what its revision says of it."""

    pinned: PinnedRevision
    file: DataFile
    content: RevisionContent
    examples: int


def fetch_split(storage: Storage, pinned: PinnedRevision, path: Path) -> RevisionSplit:
    """The split, downloaded to `path`. Raises DiagnosedError: DatasetNotFound, or DatasetInvalid if it was altered."""
    content = _content(storage, pinned)
    found = next((split for split in content.splits if split.name == pinned.split), None)
    location = parse_location(pinned.file_uri)
    if found is None:
        raise _altered(pinned, location)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage.download(location, path, missing=Reason.DATASET_NOT_FOUND, sha256=found.sha256)
    except MismatchError as error:
        raise _altered(pinned, location) from error
    return RevisionSplit(pinned, DataFile(location.uri, path, found.sha256), content, found.examples)


def _content(storage: Storage, pinned: PinnedRevision) -> RevisionContent:
    location = parse_location(pinned.uri).join(REVISION_NAME)
    body = storage.find(location)
    if body is None:
        raise DiagnosedError(
            Reason.DATASET_NOT_FOUND,
            f"{storage.describe(parse_location(pinned.uri))} has no {REVISION_NAME}: the files of revision "
            f"{pinned.digest} of Dataset {pinned.name!r} were removed, or are in another storage than this class's. "
            "Build it again (spec.runId of the Dataset) in this storage, then change spec.runId here.",
        )
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != pinned.digest:
        raise _altered(pinned, location)
    try:
        return RevisionContent.from_bytes(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] != NEWER_FORMAT:
            raise _altered(pinned, location) from error
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"{location.uri} was written by a newer trainer: {problem['msg']}. Use the operator and the image of that "
            "version again, or build the Dataset with this one (its spec.runId), then change spec.runId here.",
        ) from error


def _altered(pinned: PinnedRevision, location: StorageLocation) -> DiagnosedError:
    return DiagnosedError(
        Reason.DATASET_INVALID,
        f"{location.uri} is not what Dataset {pinned.name!r} committed as revision {pinned.digest}: somebody has "
        "changed or removed it. Build the Dataset again (its spec.runId), then change spec.runId here.",
    )
