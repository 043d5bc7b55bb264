"""The storage on a laptop: S3 and local folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.run import StorageConfig
from finetune_api.sources import S3Location
from finetune_trainer.storage.local_folders import LocalFolders
from finetune_trainer.storage.storage import Storage, StoredFile, StoredObject


class LocalStorage(Storage):
    """A storage whose file:// locations are local folders. It connects to S3 only for s3:// locations."""

    def __init__(self, config: StorageConfig) -> None:
        super().__init__(config)
        self._folders = LocalFolders()

    def read(self, location: S3Location, missing: Reason | None = None) -> bytes:
        if location.is_local:
            return self._folders.read(location, missing)
        return super().read(location, missing)

    def describe(self, folder: S3Location) -> str:
        return f"{folder.uri}/" if folder.is_local else super().describe(folder)

    def find(self, location: S3Location) -> bytes | None:
        if location.is_local:
            return self._folders.find(location)
        return super().find(location)

    def read_range(self, location: S3Location, start: int, length: int, missing: Reason | None = None) -> bytes:
        if location.is_local:
            return self._folders.read_range(location, start, length, missing)
        return super().read_range(location, start, length, missing)

    def require_strong_etags(self, probe: S3Location) -> None:
        if not probe.is_local:  # Local files are not read in parts.
            super().require_strong_etags(probe)

    def write(self, location: S3Location, body: bytes) -> None:
        if location.is_local:
            self._folders.write(location, body)
        else:
            super().write(location, body)

    def write_if_absent(self, location: S3Location, body: bytes) -> bool:
        if location.is_local:
            return self._folders.write_if_absent(location, body)
        return super().write_if_absent(location, body)

    def upload(self, source: Path | memoryview, location: S3Location) -> StoredFile:
        if location.is_local:
            return self._folders.upload(source, location)
        return super().upload(source, location)

    def download(
        self,
        location: S3Location,
        file: Path,
        missing: Reason | None = None,
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        if location.is_local:
            self._folders.download(location, file, missing, size=size, sha256=sha256)
        else:
            super().download(location, file, missing, size=size, sha256=sha256)

    def list_objects(self, folder: S3Location, missing: Reason | None = None) -> list[StoredObject]:
        if folder.is_local:
            return self._folders.list_objects(folder, missing)
        return super().list_objects(folder, missing)

    def delete(self, locations: Iterable[S3Location]) -> None:
        everything = list(locations)
        self._folders.delete(location for location in everything if location.is_local)
        super().delete(location for location in everything if not location.is_local)

    def abort_uploads(self, folder: S3Location, only: Callable[[str], bool] = lambda path: True) -> int:
        if folder.is_local:
            return self._folders.abort_uploads(folder, only)
        return super().abort_uploads(folder, only)
