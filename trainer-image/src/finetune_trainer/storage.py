"""The edge to S3-compatible storage. Every method raises DiagnosedError, never an exception of boto3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import RetriesExceededError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from finetune_api.conditions import Reason
from finetune_api.run import StorageConfig
from finetune_api.sources import S3Location
from finetune_trainer.failures import DiagnosedError

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
ATTEMPTS = 4  # with a silent endpoint: four connect timeouts and the pauses between, half a minute in all
PARALLEL_FILES = 4
TRANSFER = TransferConfig(max_concurrency=4)  # parts of one file

DENIED_CODES = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AuthorizationHeaderMalformed",  # the wrong region
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "Unauthorized",
    }
)
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)
UNREACHABLE = (HTTPClientError, BotoConnectionError, IncompleteReadError)
MISSING_CODES = frozenset({"404", "NoSuchKey", "NotFound"})


@dataclass(frozen=True)
class StoredObject:
    """An object below a folder; `path` is relative to the folder."""

    path: str
    size: int


class Storage:
    """One storage, with the credentials of the environment (AWS_*, or a pod identity's)."""

    def __init__(self, config: StorageConfig) -> None:
        self._client: Any = _client(config)
        self._where = config.endpoint or f"AWS S3 in {config.region}"

    def read(self, location: S3Location, missing: Reason | None = None) -> bytes:
        """The whole object. `missing` is the reason to fail with when it, or its bucket, does not exist."""
        with self._diagnosed(location, missing):
            response = self._client.get_object(Bucket=location.bucket, Key=location.key)
            body: bytes = response["Body"].read()
            return body

    def read_range(self, location: S3Location, start: int, length: int, missing: Reason | None = None) -> bytes:
        """`length` bytes from `start`."""
        with self._diagnosed(location, missing):
            response = self._client.get_object(
                Bucket=location.bucket, Key=location.key, Range=f"bytes={start}-{start + length - 1}"
            )
            body: bytes = response["Body"].read()
            return body

    def write(self, location: S3Location, body: bytes) -> None:
        """Put an object, over an old one if there is one."""
        with self._diagnosed(location):
            self._client.put_object(Bucket=location.bucket, Key=location.key, Body=body)

    def write_if_absent(self, location: S3Location, body: bytes) -> bool:
        """Put an object unless one is there (If-None-Match: *). False: one was there, and was left alone."""
        with self._diagnosed(location):
            try:
                self._client.put_object(Bucket=location.bucket, Key=location.key, Body=body, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

    def upload(self, file: Path, location: S3Location) -> None:
        """Upload a local file, large ones in parallel parts."""
        with self._diagnosed(location), file.open("rb") as stream:
            self._client.upload_fileobj(stream, location.bucket, location.key, Config=TRANSFER)

    def download(self, location: S3Location, file: Path, missing: Reason | None = None) -> None:
        """Download to a local file, large ones in parallel ranges. Makes the folders that it needs."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._diagnosed(location, missing):
            self._client.download_file(location.bucket, location.key, str(file), Config=TRANSFER)

    def list_objects(self, folder: S3Location, missing: Reason | None = None) -> list[StoredObject]:
        """Every object below a folder, sorted by path; empty when there is none."""
        prefix = folder.key.rstrip("/") + "/"
        found: list[StoredObject] = []
        with self._diagnosed(folder, missing):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Contents", []):
                    path = item["Key"].removeprefix(prefix)
                    if path and not path.endswith("/"):
                        found.append(StoredObject(path=path, size=item["Size"]))
        return sorted(found, key=lambda item: item.path)

    def delete(self, locations: Iterable[S3Location]) -> None:
        """Delete objects; what is not there is no failure."""
        for location in locations:
            with self._diagnosed(location):
                self._client.delete_object(Bucket=location.bucket, Key=location.key)

    @contextmanager
    def _diagnosed(self, location: S3Location, missing: Reason | None = None) -> Iterator[None]:
        try:
            yield
        except RetriesExceededError as error:  # of a download's parts
            raise diagnose(error.last_exception, location, self._where, missing) from error
        except (BotoCoreError, ClientError) as error:
            raise diagnose(error, location, self._where, missing) from error


def in_parallel(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Run `work` on every item, a few at a time. Raises the first failure."""
    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="storage") as pool:
        for future in [pool.submit(work, item) for item in items]:
            try:
                future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def diagnose(error: Exception, location: S3Location, where: str, missing: Reason | None = None) -> DiagnosedError:
    """What a person needs to hear about an error of boto3 on `location` of the storage `where`."""
    if isinstance(error, NO_CREDENTIALS):
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"There are no credentials for {where} ({error}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (in the Secret that the FineTuneClass names), or let the class name a "
            "service account with a pod identity.",
        )
    if isinstance(error, ClientError):
        return _diagnose_answer(error, location, where, missing)
    if isinstance(error, UNREACHABLE):
        return DiagnosedError(
            Reason.STORAGE_UNREACHABLE,
            f"{where} did not answer for {location.uri} after {ATTEMPTS} attempts: {error}. "
            "Check the FineTuneClass's storage.endpoint, and that Pods of this namespace may reach it.",
            retryable=True,
        )
    return DiagnosedError(Reason.FAILED, f"{where}, {location.uri}: {error}", retryable=True)


def _diagnose_answer(error: ClientError, location: S3Location, where: str, missing: Reason | None) -> DiagnosedError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = error.response.get("Error", {}).get("Message", "")
    if code == "NoSuchBucket":
        return DiagnosedError(
            missing or Reason.BUCKET_NOT_FOUND,
            f"The bucket {location.bucket!r} of {location.uri} does not exist at {where}. "
            "Create it, or correct the name.",
        )
    if code in DENIED_CODES or status in (401, 403):
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"{where} refused access to {location.uri}: {code}: {said}. Check the keys in the "
            f"Secret that the FineTuneClass names, and that they may read, write, list and delete in "
            f"{location.bucket!r}.",
        )
    if code in MISSING_CODES:
        return DiagnosedError(
            missing or Reason.FAILED,
            f"Nothing is at {location.uri} ({where}). Upload it, or correct the URI.",
        )
    unavailable = status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout")
    return DiagnosedError(
        Reason.STORAGE_UNREACHABLE if unavailable else Reason.FAILED,
        f"{where} answered {status} {code} for {location.uri}: {said}",
        retryable=True,
    )


def _client(config: StorageConfig) -> Any:
    session = botocore.session.Session()
    # The node's own role is not the tenant's: only what the Pod itself was given counts.
    session.get_component("credential_provider").remove("iam-role")
    return boto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=config.endpoint,
        region_name=config.region,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=PARALLEL_FILES * TRANSFER.max_concurrency,
            s3={"addressing_style": "path" if config.path_style else "auto"},
            # Many S3-compatible servers do not know the newer trailing checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
