"""The class's S3 storage: small objects, streams and multipart uploads, in a few threads beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, PartialCredentialsError
from botocore.session import Session

from finetune_api.finetuneclass import Storage as StorageSpec
from finetune_openai.errors import unavailable

THREADS = 16
READ_BYTES = 2**20
Answer = TypeVar("Answer")
_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})


@dataclass(frozen=True)
class StoredObject:
    """An object of the storage, as it is listed."""

    key: str
    bytes: int


class Storage:
    """One bucket. Every method raises RefusedError (503) when the storage does not answer, or refuses."""

    def __init__(self, spec: StorageSpec, credentials: Path | None) -> None:
        """`credentials`: a folder as a Secret is mounted; None: AWS's own chain (a pod identity)."""
        self.bucket = spec.bucket
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        encryption = spec.server_side_encryption
        self._encryption = {} if encryption is None else encryption.request_parameters()
        self._ca_file = _ca_file(spec.ca_bundle)
        session = Session()
        if credentials is not None:
            session._credentials = _MountedCredentials(credentials)
        self._api = session.create_client(
            "s3",
            endpoint_url=spec.endpoint,
            region_name=spec.region,
            verify=None if self._ca_file is None else self._ca_file.name,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 4},
                max_pool_connections=THREADS,
                s3={"addressing_style": "path" if spec.path_style else "virtual"},
                # Many S3-compatible servers do not know the newer trailing checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    async def read(self, key: str) -> bytes | None:
        """The whole of a small object; None when there is none."""

        def read() -> bytes | None:
            try:
                content: bytes = self._api.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            return content

        return await self._call(read)

    async def write(self, key: str, content: bytes) -> None:
        """Write a small object."""
        await self._call(lambda: self._api.put_object(Bucket=self.bucket, Key=key, Body=content, **self._encryption))

    async def delete(self, key: str) -> None:
        """Remove an object; none is no error."""
        await self._call(lambda: self._api.delete_object(Bucket=self.bucket, Key=key))

    async def objects(self, prefix: str) -> list[StoredObject]:
        """Every object whose key starts so, by key."""

        def listed() -> list[StoredObject]:
            pages = self._api.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [StoredObject(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", ())]

        return await self._call(listed)

    @contextlib.asynccontextmanager
    async def stream(self, key: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]] | None]:
        """Size and content of an object, piece by piece; None when there is none."""

        def begin() -> Any:
            try:
                return self._api.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise

        answer = await self._call(begin)
        if answer is None:
            yield None
            return
        body = answer["Body"]

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await self._call(lambda: body.read(READ_BYTES)):
                yield piece

        try:
            yield answer["ContentLength"], pieces()
        finally:
            body.close()

    async def begin_upload(self, key: str) -> str:
        """Begin a multipart upload; returns its id."""
        answer = await self._call(
            lambda: self._api.create_multipart_upload(Bucket=self.bucket, Key=key, **self._encryption)
        )
        return str(answer["UploadId"])

    async def upload_part(self, key: str, upload: str, number: int, content: bytes | bytearray) -> str:
        """Send one part, counted from 1; returns its ETag."""
        answer = await self._call(
            lambda: self._api.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=content)
        )
        return str(answer["ETag"])

    async def complete_upload(self, key: str, upload: str, etags: list[str]) -> None:
        """Make an object of the parts, in this order."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        await self._call(
            lambda: self._api.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        )

    async def abort_upload(self, key: str, upload: str) -> None:
        """Remove the parts of an upload; one that is gone is no error."""

        def abort() -> None:
            try:
                self._api.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            except ClientError as error:
                if not _is_missing(error):
                    raise

        await self._call(abort)

    async def _call(self, request: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except (BotoCoreError, ClientError) as error:
            # Its text may name what is the platform's business: endpoints, buckets, keys.
            raise unavailable(f"The file storage is not available now ({_kind(error)}). Try again later.") from error

    def close(self) -> None:
        """End the threads; requests in flight are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _MountedCredentials(Credentials):
    """Keys that are read for each request, from files that the kubelet replaces when the Secret is rotated."""

    def __init__(self, folder: Path) -> None:
        super().__init__("", "", method="mounted-secret")
        self._folder = folder

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        access, secret = self._text("AWS_ACCESS_KEY_ID"), self._text("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            missing = "AWS_ACCESS_KEY_ID" if not access else "AWS_SECRET_ACCESS_KEY"
            raise PartialCredentialsError(provider="mounted-secret", cred_var=missing)
        return ReadOnlyCredentials(access, secret, self._text("AWS_SESSION_TOKEN"))

    def _text(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text().strip() or None
        except FileNotFoundError:
            return None


def _ca_file(ca_bundle: str | None) -> Any:
    """A temporary file with the certificates to trust, removed with the last reference to it; None: the public ones."""
    if ca_bundle is None:
        return None
    file = tempfile.NamedTemporaryFile("w", prefix="storage-ca-", suffix=".pem")  # noqa: SIM115 (held by the client)
    file.write(ca_bundle)
    file.flush()
    return file


def _is_missing(error: ClientError) -> bool:
    return str(error.response.get("Error", {}).get("Code", "")) in _MISSING


def _kind(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) or "refused"
    return type(error).__name__
