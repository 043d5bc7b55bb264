"""S3 and local folders together, by the scheme of a location: the storage on a laptop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import StorageConfig
from finetune_api.sources import StorageLocation
from finetune_trainer.storage.local_folders import LocalFolders
from finetune_trainer.storage.storage import Storage, StoredFile, StoredObject


class S3AndLocalStorage(Storage):
    """A storage whose file:// locations are local folders. It connects to S3 only for s3:// locations."""

    def __init__(self, config: StorageConfig) -> None:
        super().__init__(config)
        self._folders = LocalFolders()

    def read(self, location: StorageLocation, missing: Reason | None = None) -> bytes:
        if location.is_local:
            return self._folders.read(location, missing)
        return super().read(location, missing)

    def describe(self, folder: StorageLocation) -> str:
        return f"{folder.uri}/" if folder.is_local else super().describe(folder)

    def find(self, location: StorageLocation) -> bytes | None:
        if location.is_local:
            return self._folders.find(location)
        return super().find(location)

    def read_range(self, location: StorageLocation, start: int, length: int, missing: Reason | None = None) -> bytes:
        if location.is_local:
            return self._folders.read_range(location, start, length, missing)
        return super().read_range(location, start, length, missing)

    def require_strong_etags(self, probe: StorageLocation) -> None:
        if not probe.is_local:  # Local files are not read in parts.
            super().require_strong_etags(probe)

    def write(self, location: StorageLocation, body: bytes) -> None:
        if location.is_local:
            self._folders.write(location, body)
        else:
            super().write(location, body)

    def write_if_absent(self, location: StorageLocation, body: bytes) -> bool:
        if location.is_local:
            return self._folders.write_if_absent(location, body)
        return super().write_if_absent(location, body)

    def upload(self, source: Path | memoryview, location: StorageLocation) -> StoredFile:
        if location.is_local:
            return self._folders.upload(source, location)
        return super().upload(source, location)

    def download(
        self,
        location: StorageLocation,
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

    def list_objects(self, folder: StorageLocation, missing: Reason | None = None) -> list[StoredObject]:
        if folder.is_local:
            return self._folders.list_objects(folder, missing)
        return super().list_objects(folder, missing)

    def delete(self, locations: Iterable[StorageLocation]) -> None:
        everything = list(locations)
        self._folders.delete(location for location in everything if location.is_local)
        super().delete(location for location in everything if not location.is_local)

    def abort_uploads(self, folder: StorageLocation, only: Callable[[str], bool] = lambda path: True) -> int:
        if folder.is_local:
            return self._folders.abort_uploads(folder, only)
        return super().abort_uploads(folder, only)
