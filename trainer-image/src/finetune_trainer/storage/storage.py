"""S3-compatible storage.

Every method retries during an outage as described in retries.py, and raises DiagnosedError, never botocore's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import STORAGE_CREDENTIALS_DIRECTORY, StorageConfig
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.client import open_client
from finetune_trainer.storage.errors import MISSING_CODES, code_of, required, unsuitable, unsuitable_for_ranges
from finetune_trainer.storage.requests.bodies import read_all
from finetune_trainer.storage.requests.ranges import NO_SUCH_RANGE_CODES, Part, length_of, total_size, version_of
from finetune_trainer.storage.retries import Retries
from finetune_trainer.storage.transfers import PARTS_IN_MEMORY, MismatchError, StoredFile, Transfers

__all__ = ["MismatchError", "Storage", "StoredFile", "StoredObject", "in_parallel"]

PARALLEL_FILES = 4


@dataclass(frozen=True)
class StoredObject:
    """An object below a folder; `path` is relative to the folder."""

    path: str
    size: int
    etag: str = field(default="", compare=False)
    """What the storage says of its content; another one if it was overwritten."""


class Storage:
    """One storage, with credentials from a folder of files or from the environment (AWS_*, a pod identity).

    `proven`: these credentials and this bucket have worked in an earlier Pod, so a denial may be temporary.
    `reports_unanswered`: an endpoint that has not answered yet fails in half a minute: the operator tries it again.
    """

    def __init__(
        self,
        config: StorageConfig,
        credentials: Path = Path(STORAGE_CREDENTIALS_DIRECTORY),
        *,
        proven: bool = False,
        reports_unanswered: bool = False,
    ) -> None:
        client = open_client(config, credentials, connections=PARALLEL_FILES + PARTS_IN_MEMORY)
        self._api = client.api
        self._where = client.where
        self._retries = Retries(
            client, config.outage_tolerance_seconds, proven=proven, reports_unanswered=reports_unanswered
        )
        self._transfers = Transfers(client, self._retries)

    def describe(self, folder: StorageLocation) -> str:
        """A folder and its endpoint, for messages."""
        return f"{folder.uri.rstrip('/')}/ ({self._where})"

    def read(self, location: StorageLocation, missing: Reason | None = None) -> bytes:
        """The whole object. `missing` is the reason of the error if it, or its bucket, does not exist."""
        return self._retries.request("GetObject", location, lambda: self._get_once(location), missing)

    def find(self, location: StorageLocation) -> bytes | None:
        """The whole object; None if the bucket has no such object. A missing bucket is an error."""

        def send() -> bytes | None:
            try:
                return self._get_once(location)
            except ClientError as error:
                if code_of(error) in MISSING_CODES:
                    return None
                raise

        return self._retries.request("GetObject", location, send)

    def read_range(self, location: StorageLocation, start: int, length: int, missing: Reason | None = None) -> bytes:
        """`length` bytes from `start`, or fewer at the end of the object."""
        part = Part(start, length)

        def send() -> bytes:
            try:
                answer = self._api.get_object(Bucket=location.bucket, Key=location.key, Range=part.range)
            except ClientError as error:
                if code_of(error) in NO_SUCH_RANGE_CODES:
                    return b""
                raise
            total = total_size(answer, part, location, self._where)
            return read_all(answer["Body"], min(length, total - start))

        return self._retries.request("GetObject", location, send, missing)

    def write(self, location: StorageLocation, body: bytes) -> None:
        """Put an object, replacing an existing one."""
        self._transfers.put(location, body)

    def write_if_absent(self, location: StorageLocation, body: bytes) -> bool:
        """Put an object unless one exists (If-None-Match: *). Returns whether the object has this content now.

        An object with the same content counts as written: an earlier try succeeded, and its response was lost.
        """
        return self._transfers.put(location, body, if_absent=True) or self.find(location) == body

    def require_conditional_writes(self, probe: StorageLocation) -> None:
        """Raises DiagnosedError (StorageUnsuitable) unless the storage rejects the second of two conditional writes.

        The commit protocol depends on that. Leaves an object at `probe`.
        """
        try:
            written = [self.write_if_absent(probe, body) for body in (b"first", b"second")]
        except DiagnosedError as error:
            if error.failure.reason is not Reason.FAILED:
                raise
            raise unsuitable(self._where, f"it rejects writes with If-None-Match: *: {error}") from error
        if written == [True, True]:
            raise unsuitable(
                self._where,
                f"it overwrote {probe.uri} despite If-None-Match: *, so two attempts could mistake each other's "
                "checkpoints for their own",
            )
        if not written[0]:
            raise unsuitable(self._where, f"it claims that {probe.uri} exists although it does not (If-None-Match: *)")

    def require_range_reads(self, probe: StorageLocation, body: bytes) -> None:
        """Raises DiagnosedError (StorageUnsuitable) unless the object at `probe` reads as `body`, whole and in ranges.

        A storage that sends the whole object for a range would fill large files with copies of their beginning.
        """
        half = len(body) // 2
        read = [self.read(probe), self.read_range(probe, 0, half), self.read_range(probe, half, len(body))]
        if read != [body, body[:half], body[half:]]:
            raise unsuitable_for_ranges(self._where, f"it returned other bytes of {probe.uri} than were just written")

    def require_strong_etags(self, probe: StorageLocation) -> None:
        """Raises DiagnosedError (StorageUnsuitable) unless a range of `probe` comes with a strong ETag.

        Downloads in parts need it, to detect that an object has changed between two of them.
        """
        part = Part(0, 1)

        def send() -> None:
            answer = self._api.get_object(Bucket=probe.bucket, Key=probe.key, Range=part.range)
            total_size(answer, part, probe, self._where)
            version_of(answer, probe, self._where)
            answer["Body"].close()

        self._retries.request("GetObject", probe, send)

    def upload(self, source: Path | memoryview, location: StorageLocation) -> StoredFile:
        """Upload a local file or bytes in one pass, large ones in parallel parts. Returns size and digest."""
        return self._transfers.upload(source, location)

    def download(
        self,
        location: StorageLocation,
        file: Path,
        missing: Reason | None = None,
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        """Download to a local file, large ones in parallel ranges. Makes the folders that it needs.

        With `size` or `sha256` (hex): raises MismatchError if the object does not exist or differs; the local file is
        then unusable.
        """
        self._transfers.download(location, file, missing, size, sha256)

    def list_objects(self, folder: StorageLocation, missing: Reason | None = None) -> list[StoredObject]:
        """Every object below a folder, sorted by path; empty if there is none."""
        prefix = folder.key.rstrip("/") + "/" if folder.key else ""
        found: list[StoredObject] = []
        for page in self._pages("list_objects_v2", "ListObjects", folder, missing, Prefix=prefix):
            for item in page.get("Contents", []):
                path = item["Key"].removeprefix(prefix)
                if path and not path.endswith("/"):
                    found.append(StoredObject(path, item["Size"], item.get("ETag", "")))
        return sorted(found, key=lambda item: item.path)

    def delete(self, locations: Iterable[StorageLocation]) -> None:
        """Delete objects. Missing ones are ignored. Fails fast in an outage."""

        def delete(location: StorageLocation) -> None:
            self._retries.request(
                "DeleteObject",
                location,
                lambda: self._api.delete_object(Bucket=location.bucket, Key=location.key),
                fail_fast=True,
            )

        in_parallel(delete, locations)

    def abort_uploads(self, folder: StorageLocation, only: Callable[[str], bool] = lambda path: True) -> int:
        """Abort incomplete multipart uploads below a folder. Returns how many there were.

        `only` selects by the path below the folder. Fails fast in an outage.
        """
        prefix = folder.key.rstrip("/") + "/"
        pages = self._pages(
            "list_multipart_uploads", "ListMultipartUploads", folder, None, fail_fast=True, Prefix=prefix
        )
        uploads = [
            upload for page in pages for upload in page.get("Uploads", []) if only(upload["Key"].removeprefix(prefix))
        ]
        for upload in uploads:
            self._abort(StorageLocation(folder.bucket, upload["Key"]), upload["UploadId"])
        return len(uploads)

    def _get_once(self, location: StorageLocation) -> bytes:
        answer = self._api.get_object(Bucket=location.bucket, Key=location.key)
        return read_all(answer["Body"], length_of(answer, location, self._where))

    def _abort(self, location: StorageLocation, upload_id: str) -> None:
        def send() -> None:
            try:
                self._api.abort_multipart_upload(Bucket=location.bucket, Key=location.key, UploadId=upload_id)
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise

        self._retries.request("AbortMultipartUpload", location, send, fail_fast=True)

    def _pages(
        self,
        method: str,
        operation: str,
        folder: StorageLocation,
        missing: Reason | None,
        *,
        fail_fast: bool = False,
        **options: str,
    ) -> list[dict[str, Any]]:
        """Every page of a listing."""
        paginator = self._api.get_paginator(method)

        def send() -> list[dict[str, Any]]:
            pages = list(paginator.paginate(Bucket=folder.bucket, **options))
            for page in pages:
                required(page, "IsTruncated")
            return pages

        return self._retries.request(operation, folder, send, missing, fail_fast=fail_fast)


def in_parallel(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Run `work` on every item, PARALLEL_FILES at a time. Raises the first failure."""
    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="storage") as pool:
        for future in [pool.submit(work, item) for item in items]:
            try:
                future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
