"""Folders in the storage that are complete or absent: the commit protocol of checkpoints and results.

1. Every process uploads its files below the folder (`upload_files`), and so knows their sizes and digests.
2. One process writes manifest.json, which lists them all, last and by a conditional PUT (`commit`).
   A folder is committed once: who comes second gets the first one's manifest back and adopts it.
3. A folder exists for readers when its manifest does. `download` checks the size and SHA-256 of every file.

What has no manifest is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api.conditions import Reason
from finetune_api.manifest import MANIFEST_NAME, Manifest, ManifestFile, digest
from finetune_api.sources import S3Location
from finetune_trainer.failures import DiagnosedError
from finetune_trainer.storage import Storage, in_parallel


class CorruptError(Exception):
    """What is in the storage is not what the manifest says."""


@dataclass(frozen=True)
class Committed:
    """A committed folder; `digest` identifies it."""

    folder: S3Location
    manifest: Manifest
    digest: str


def upload_files(storage: Storage, folder: S3Location, directory: Path, paths: Iterable[str]) -> list[ManifestFile]:
    """Upload `directory/<path>` to `folder/<path>` for each path, and describe them for the manifest."""
    paths = sorted(paths)
    in_parallel(lambda path: storage.upload(directory / path, folder.join(path)), paths)
    return [
        ManifestFile(path=path, size=(directory / path).stat().st_size, sha256=sha256(directory / path))
        for path in paths
    ]


def commit(storage: Storage, folder: S3Location, manifest: Manifest) -> Committed:
    """Commit the folder, and answer what is committed: this manifest, or the one that was first."""
    body = manifest.to_bytes()
    if storage.write_if_absent(folder.join(MANIFEST_NAME), body):
        return Committed(folder, manifest, digest(body))
    return read_committed(storage, folder)


def read_committed(storage: Storage, folder: S3Location, missing: Reason | None = None) -> Committed:
    """The folder's manifest. Raises CorruptError when it is malformed, DiagnosedError when there is none."""
    location = folder.join(MANIFEST_NAME)
    body = storage.read(location, missing)
    try:
        return Committed(folder, Manifest.model_validate_json(body), digest(body))
    except ValidationError as error:
        raise CorruptError(f"{location.uri} is no manifest: {error}") from error


def find_committed(storage: Storage, folder: S3Location) -> Committed | None:
    """The folder's manifest, or None when it has none. Raises CorruptError as `read_committed` does."""
    try:
        return read_committed(storage, folder, missing=Reason.REFERENCE_NOT_FOUND)
    except DiagnosedError as error:
        if error.failure.reason is Reason.REFERENCE_NOT_FOUND:
            return None
        raise


def download(storage: Storage, committed: Committed, directory: Path, only: frozenset[str] | None = None) -> None:
    """Bring the files of a committed folder (or `only` these) to `directory`.

    Raises CorruptError when a file is missing or differs from what the manifest says.
    """

    def fetch(file: ManifestFile) -> None:
        location, target = committed.folder.join(file.path), directory / file.path
        try:
            storage.download(location, target, missing=Reason.REFERENCE_NOT_FOUND)
        except DiagnosedError as error:
            if error.failure.reason is Reason.REFERENCE_NOT_FOUND:
                raise CorruptError(f"{location.uri} is in the manifest, but not in the storage") from error
            raise
        size = target.stat().st_size
        if size != file.size:
            raise CorruptError(f"{location.uri} has {size} bytes; its manifest says {file.size}")
        if sha256(target) != file.sha256:
            raise CorruptError(f"{location.uri} does not have the SHA-256 that its manifest says")

    files = committed.manifest.files
    in_parallel(fetch, [file for file in files if only is None or file.path in only])


def sha256(file: Path) -> str:
    """Hex digest of a local file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
