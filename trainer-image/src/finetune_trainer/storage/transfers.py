"""Uploads and downloads in parallel parts, hashed on the way, in bounded memory.

A file is read once and written once. Its parts are transferred in any order but hashed in sequence, so a part stays in
memory until all parts before it are done. All files together have at most PARTS_IN_MEMORY parts in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.storage.client import S3Client
from finetune_trainer.storage.errors import MISSING_CODES, code_of, required
from finetune_trainer.storage.requests.bodies import PacedBody, read_into
from finetune_trainer.storage.requests.ranges import (
    NO_SUCH_RANGE_CODES,
    Part,
    changed_while_read,
    is_changed,
    total_size,
    version_of,
)
from finetune_trainer.storage.retries import Retries

T = TypeVar("T")

PART_BYTES = 8 * 2**20
MOST_PARTS = 10_000  # of one object, https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PARTS_IN_MEMORY = 8


class _ChangedError(Exception):
    """A part belongs to another version of the object than the first part. Its argument is the evidence."""


class MismatchError(Exception):
    """An object is missing, or differs in size or digest from what was expected."""


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file. `sha256` is a hex digest."""

    size: int
    sha256: str


@dataclass(frozen=True)
class FirstPart:
    """The first part of an object, with the size of the whole object. `etag`: empty if it is the only part."""

    content: memoryview
    total: int
    etag: str


@dataclass(frozen=True)
class Filled:
    """A buffer whose first `size` bytes are a part."""

    buffer: bytearray
    size: int


@dataclass(frozen=True)
class Content:
    """The content of an upload."""

    size: int
    read: Callable[[Part], bytes]


def split(size: int, part_bytes: int, start: int = 0) -> list[Part]:
    """The parts of a file of `size` bytes from `start` on, in order."""
    return [Part(position, min(part_bytes, size - position)) for position in range(start, size, part_bytes)]


class Transfers:
    """The files of one storage. Thread-safe."""

    def __init__(self, client: S3Client, retries: Retries) -> None:
        self._client = client
        self._api = client.api
        self._retries = retries
        self._slots = threading.BoundedSemaphore(PARTS_IN_MEMORY)
        self._buffers: list[bytearray] = []
        self._pool = ThreadPoolExecutor(PARTS_IN_MEMORY, thread_name_prefix="storage-part")

    def put(self, location: StorageLocation, body: bytes, *, if_absent: bool = False) -> bool:
        """Put an object in one request. Returns whether it was written; with `if_absent`, False if one exists.

        Raises DiagnosedError.
        """
        condition = {"IfNoneMatch": "*"} if if_absent else {}

        def send() -> bool:
            try:
                self._api.put_object(
                    **_bucket_and_key(location), Body=PacedBody(body), **self._client.encryption, **condition
                )
            except ClientError as error:
                if if_absent and code_of(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

        return self._retries.request("PutObject", location, send)

    def upload(self, source: Path | memoryview, location: StorageLocation) -> StoredFile:
        """Upload a file or bytes, replacing an existing object. Raises DiagnosedError."""
        with _opened(source) as content:
            if content.size > PART_BYTES:
                return self._upload_parts(content, location)
            with self._slots:
                body = content.read(Part(0, content.size))
                self.put(location, body)
                return StoredFile(len(body), hashlib.sha256(body).hexdigest())

    def download(
        self, location: StorageLocation, file: Path, missing: Reason | None, size: int | None, sha256: str | None
    ) -> None:
        """Download to a file. Raises MismatchError for another size or digest, DiagnosedError."""
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with file.open("wb", buffering=0) as stream:
            with self._slots, self._buffer() as buffer:
                first = self._get_first(location, buffer, missing, expected=(size, sha256) != (None, None))
                if size is not None and first.total != size:
                    raise MismatchError(f"{location.uri} has {first.total} bytes; {size} were expected")
                os.pwrite(stream.fileno(), first.content, 0)
                digest.update(first.content)
            try:
                for filled in self._in_order(self._download_tasks(location, first, stream.fileno())):
                    digest.update(memoryview(filled.buffer)[: filled.size])
                    self._buffers.append(filled.buffer)
            except _ChangedError as error:
                if (size, sha256) != (None, None):
                    raise MismatchError(f"{location.uri} changed while it was read") from error
                raise changed_while_read(location, str(error)) from error
        if sha256 is not None and digest.hexdigest() != sha256:
            raise MismatchError(f"{location.uri} does not have the expected SHA-256")

    def _upload_parts(self, content: Content, location: StorageLocation) -> StoredFile:
        parts = split(content.size, max(PART_BYTES, math.ceil(content.size / MOST_PARTS)))
        upload_id = self._retries.request(
            "CreateMultipartUpload",
            location,
            lambda: required(
                self._api.create_multipart_upload(**_bucket_and_key(location), **self._client.encryption), "UploadId"
            ),
        )
        digest = hashlib.sha256()
        try:
            etags = list(self._in_order(self._upload_tasks(location, upload_id, content, parts, digest)))
            self._complete(location, upload_id, etags, content.size)
        except BaseException:
            # Tried once: an upload that remains is removed with the other orphans.
            with contextlib.suppress(BotoCoreError, ClientError):
                self._api.abort_multipart_upload(**_bucket_and_key(location), UploadId=upload_id)
            raise
        return StoredFile(content.size, digest.hexdigest())

    def _upload_tasks(
        self, location: StorageLocation, upload_id: str, content: Content, parts: Sequence[Part], digest: Any
    ) -> Iterator[Callable[[], str]]:
        """Read and hash each part. Yields tasks that upload it and return its ETag."""
        for number, part in enumerate(parts, start=1):
            body = content.read(part)
            digest.update(body)

            def put(number: int = number, body: bytes = body) -> str:
                def send() -> str:
                    etag: str = self._api.upload_part(
                        **_bucket_and_key(location), UploadId=upload_id, PartNumber=number, Body=PacedBody(body)
                    )["ETag"]
                    return etag

                return self._retries.request("UploadPart", location, send)

            yield put

    def _complete(self, location: StorageLocation, upload_id: str, etags: Sequence[str], size: int) -> None:
        listed = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]

        def send() -> None:
            try:
                done = self._api.complete_multipart_upload(
                    **_bucket_and_key(location), UploadId=upload_id, MultipartUpload={"Parts": listed}
                )
                required(done, "ETag")
            except ClientError as error:
                # An earlier try may have succeeded although its response was lost.
                if code_of(error) != "NoSuchUpload" or self._size(location) != size:
                    raise

        self._retries.request("CompleteMultipartUpload", location, send)

    def _size(self, location: StorageLocation) -> int | None:
        """An object's size; None if it can't be determined."""
        try:
            size: int = self._api.head_object(**_bucket_and_key(location))["ContentLength"]
        except ClientError:
            return None
        return size

    def _get_first(
        self, location: StorageLocation, buffer: bytearray, missing: Reason | None, *, expected: bool
    ) -> FirstPart:
        part = Part(0, PART_BYTES)

        def send() -> FirstPart:
            try:
                answer = self._api.get_object(**_bucket_and_key(location), Range=part.range)
            except ClientError as error:
                if code_of(error) in NO_SUCH_RANGE_CODES:  # The object is empty: it has no first byte.
                    return FirstPart(memoryview(b""), 0, "")
                if expected and code_of(error) in MISSING_CODES:
                    raise MismatchError(f"{location.uri} does not exist") from error
                raise
            total = total_size(answer, part, location, self._client.where)
            etag = version_of(answer, location, self._client.where) if total > part.size else ""
            content = memoryview(buffer)[: min(total, part.size)]
            read_into(answer["Body"], content)
            return FirstPart(content, total, etag)

        return self._retries.request("GetObject", location, send, missing)

    def _download_tasks(
        self, location: StorageLocation, first: FirstPart, descriptor: int
    ) -> Iterator[Callable[[], Filled]]:
        """Yields a task for each part but the first, which downloads it, writes it to the file and returns it."""
        for part in split(first.total, PART_BYTES, start=PART_BYTES):

            def get(part: Part = part) -> Filled:
                buffer = self._take_buffer()
                content = memoryview(buffer)[: part.size]

                def send() -> None:
                    try:
                        answer = self._api.get_object(**_bucket_and_key(location), Range=part.range, IfMatch=first.etag)
                    except ClientError as error:
                        if is_changed(error):
                            raise _ChangedError(code_of(error)) from error
                        raise
                    total = total_size(answer, part, location, self._client.where)
                    if (total, answer.get("ETag")) != (first.total, first.etag):
                        answer["Body"].close()
                        raise _ChangedError("its ETag or size changed")
                    read_into(answer["Body"], content)

                self._retries.request("GetObject", location, send)
                os.pwrite(descriptor, content, part.start)
                return Filled(buffer, part.size)

            yield get

    def _take_buffer(self) -> bytearray:
        """A buffer for a part, reused if possible: new memory costs a page fault for every 4 KiB."""
        try:
            return self._buffers.pop()
        except IndexError:
            return bytearray(PART_BYTES)

    @contextlib.contextmanager
    def _buffer(self) -> Iterator[bytearray]:
        buffer = self._take_buffer()
        yield buffer
        self._buffers.append(buffer)

    def _in_order(self, tasks: Iterator[Callable[[], T]]) -> Iterator[T]:
        """The results of the tasks, in order. The tasks run concurrently, as many as the memory allows.

        A task is started when it gets a slot, which is freed once its result has been used. Only a caller without a
        running task blocks on a slot: all others finish their tasks, so there is no deadlock.
        """
        running: deque[Future[T]] = deque()
        more = True
        try:
            while more or running:
                while more and self._slots.acquire(blocking=not running):
                    task = None
                    try:
                        task = next(tasks, None)
                    finally:
                        if task is None:
                            more = False
                            self._slots.release()
                    if task is not None:
                        running.append(self._pool.submit(task))
                if running:
                    yield running[0].result()
                    running.popleft()
                    self._slots.release()
        finally:
            for future in running:
                future.cancel()
                future.add_done_callback(lambda _: self._slots.release())


@contextlib.contextmanager
def _opened(source: Path | memoryview) -> Iterator[Content]:
    if isinstance(source, memoryview):
        octets = source.cast("B")
        yield Content(octets.nbytes, lambda part: bytes(octets[part.start : part.start + part.size]))
        return
    with source.open("rb", buffering=0) as stream:

        def read(part: Part) -> bytes:
            body = os.pread(stream.fileno(), part.size, part.start)
            if len(body) != part.size:
                raise OSError(f"{source} became shorter while it was uploaded")
            return body

        yield Content(os.fstat(stream.fileno()).st_size, read)


def _bucket_and_key(location: StorageLocation) -> dict[str, str]:
    return {"Bucket": location.bucket, "Key": location.key}
