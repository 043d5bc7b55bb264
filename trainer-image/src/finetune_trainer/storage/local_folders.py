"""Local folders as storage, for file:// locations on a laptop.

They give the same guarantees as S3. A file appears as a whole or not at all: it is written under a temporary name and
then renamed. `write_if_absent` creates a hard link instead, which fails if the name exists.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import StoredObject
from finetune_trainer.storage.transfers import MismatchError, StoredFile

UNFINISHED_SUFFIX = ".part"
PIECE_BYTES = 1024 * 1024


class LocalFolders:
    """Every method raises DiagnosedError, never an OSError."""

    def read(self, location: StorageLocation, missing: Reason | None = None) -> bytes:
        """The whole file. `missing` is the reason to fail with when it does not exist."""
        with _diagnosed(location, missing):
            return local_path(location).read_bytes()

    def find(self, location: StorageLocation) -> bytes | None:
        """The whole file; None if it does not exist."""
        with _diagnosed(location):
            try:
                return local_path(location).read_bytes()
            except FileNotFoundError:
                return None

    def read_range(self, location: StorageLocation, start: int, length: int, missing: Reason | None = None) -> bytes:
        """`length` bytes from `start`, or fewer at the end of the file."""
        with _diagnosed(location, missing), local_path(location).open("rb") as stream:
            stream.seek(start)
            return stream.read(length)

    def write(self, location: StorageLocation, body: bytes) -> None:
        """Write a file, replacing an existing one."""
        with _diagnosed(location), _unfinished(local_path(location)) as unfinished:
            _write_through(unfinished, [body])
            unfinished.replace(local_path(location))

    def write_if_absent(self, location: StorageLocation, body: bytes) -> bool:
        """Write a file unless one exists. Returns whether the file has this content now."""
        with _diagnosed(location), _unfinished(local_path(location)) as unfinished:
            _write_through(unfinished, [body])
            try:
                local_path(location).hardlink_to(unfinished)
            except FileExistsError:
                return local_path(location).read_bytes() == body
            return True

    def upload(self, source: Path | memoryview, location: StorageLocation) -> StoredFile:
        """Copy a file or bytes to the location. Returns size and digest of what was read."""
        digest, size = hashlib.sha256(), 0

        def pieces() -> Iterator[bytes | memoryview]:
            nonlocal size
            for piece in _pieces(source):
                digest.update(piece)
                size += len(piece)
                yield piece

        with _diagnosed(location), _unfinished(local_path(location)) as unfinished:
            _write_through(unfinished, pieces())
            unfinished.replace(local_path(location))
        return StoredFile(size, digest.hexdigest())

    def download(
        self,
        location: StorageLocation,
        file: Path,
        missing: Reason | None = None,
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """Create `file` as a verified copy if `size` or `sha256` is given, otherwise as a symbolic link.

        Raises MismatchError as Storage.download does.
        """
        source = local_path(location)
        with _diagnosed(location, missing):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if (size, sha256) == (None, None):
                file.symlink_to(source.resolve(strict=True))
                return
            try:
                shutil.copyfile(source, file)
            except FileNotFoundError:
                raise MismatchError(f"{location.uri} does not exist") from None
            if size is not None and file.stat().st_size != size:
                raise MismatchError(f"{location.uri} has {file.stat().st_size} bytes; {size} were expected")
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if sha256 is not None and found != sha256:
                raise MismatchError(f"{location.uri} does not have the expected SHA-256")

    def list_objects(self, folder: StorageLocation, missing: Reason | None = None) -> list[StoredObject]:
        """Every file below a folder, sorted by path; empty if the folder does not exist."""
        with _diagnosed(folder, missing):
            found = [(path, local_path(folder) / path) for path in _paths(local_path(folder))]
            return [
                StoredObject(path=path, size=file.stat().st_size) for path, file in found if not _is_unfinished(file)
            ]

    def delete(self, locations: Iterable[StorageLocation]) -> None:
        """Delete files, and folders that become empty. Missing files are ignored."""
        for location in locations:
            with _diagnosed(location):
                local_path(location).unlink(missing_ok=True)
                _remove_empty(local_path(location).parent)

    def abort_uploads(self, folder: StorageLocation, only: Callable[[str], bool] = lambda path: True) -> int:
        """Remove the temporary files of interrupted writes below a folder; only paths for which `only(path)` holds."""
        with _diagnosed(folder):
            unfinished = [path for path in _paths(local_path(folder)) if _is_unfinished(Path(path)) and only(path)]
            for path in unfinished:
                (local_path(folder) / path).unlink(missing_ok=True)
        return len(unfinished)


def local_path(location: StorageLocation) -> Path:
    """The path of a file:// location."""
    return Path("/") / location.key


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A unique temporary name next to the target, removed at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}{UNFINISHED_SUFFIX}")
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _is_unfinished(file: Path) -> bool:
    return file.suffix == UNFINISHED_SUFFIX


def _write_through(file: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write, and fsync."""
    with file.open("xb") as stream:
        for piece in pieces:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def _pieces(source: Path | memoryview) -> Iterator[bytes | memoryview]:
    if isinstance(source, Path):
        with source.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    else:
        content = source.cast("B")
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]


def _paths(folder: Path) -> list[str]:
    """Every file below a folder, relative to it, sorted."""
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix() for parent, _, names in os.walk(folder) for name in names
    )


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # A parent has files, or another process removed it.
        for empty in (folder, *folder.parents):
            empty.rmdir()


@contextlib.contextmanager
def _diagnosed(location: StorageLocation, missing: Reason | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            reason, problem = missing or Reason.FAILED, "does not exist"
        elif isinstance(error, PermissionError):
            reason, problem = Reason.STORAGE_DENIED, "may not be read or written by you"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason, problem = Reason.STORAGE_UNREACHABLE, "can't be written: the disk is full"
        elif error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            reason, problem = (
                Reason.STORAGE_UNREACHABLE,
                "is on a file system without hard links: choose another folder",
            )
        else:
            reason, problem = Reason.STORAGE_UNREACHABLE, f"can't be read or written: {error.strerror}"
        raise DiagnosedError(reason, f"{local_path(location)} {problem}.") from error
