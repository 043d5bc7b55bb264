"""Classifies errors of the storage: whether to retry them, and how to report them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError

AUTHENTICATION_CODES = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
"""The credentials themselves are rejected, whatever the request."""
DENIED_CODES = AUTHENTICATION_CODES | {"401", "403", "AccessDenied", "Unauthorized"}
REGION_CODES = frozenset({"301", "AuthorizationHeaderMalformed", "PermanentRedirect"})
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)
NO_ANSWER = (HTTPClientError, BotoConnectionError, IncompleteReadError, ResponseStreamingError)
UNAVAILABLE_CODES = frozenset(
    {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown", "Throttling"}
)
UNSUPPORTED_CODES = frozenset({"501", "NotImplemented", "XNotImplemented"})
MISSING_CODES = frozenset({"404", "NoSuchKey", "NotFound"})

StorageError: TypeAlias = BotoCoreError | ClientError


class TooSlowError(HTTPClientError):
    """A transfer below the minimum rate: the connection is closed."""

    fmt = "The connection moved less than {bytes_per_second} bytes a second"


class ErrorKind(Enum):
    """Whether a retry can help."""

    UNAVAILABLE = "unavailable"
    """A retry succeeds once the storage is available again."""
    DENIED = "denied"
    """A retry succeeds only once rotated keys have arrived, or a starting storage has loaded its settings."""
    PERMANENT = "permanent"
    """Every retry fails in the same way."""


def error_kind(error: StorageError) -> ErrorKind:
    """Classify an error of botocore."""
    if isinstance(error, NO_CREDENTIALS):
        return ErrorKind.DENIED
    if not isinstance(error, ClientError):
        return (
            ErrorKind.UNAVAILABLE
            if isinstance(error, NO_ANSWER) and not _is_untrusted_certificate(error)
            else ErrorKind.PERMANENT
        )
    code, status = code_of(error), status_of(error)
    if status == 501 or code in UNSUPPORTED_CODES:
        return ErrorKind.PERMANENT
    if status >= 500 or status == 429 or code in UNAVAILABLE_CODES:
        return ErrorKind.UNAVAILABLE
    if status in (401, 403) or code in DENIED_CODES or code == "NoSuchBucket":
        return ErrorKind.DENIED
    return ErrorKind.PERMANENT


def code_of(error: StorageError) -> str:
    """The S3 error code; empty without a response."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: ClientError) -> int:
    """The HTTP status of the response."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def diagnose(
    error: StorageError,
    location: StorageLocation,
    where: str,
    missing: Reason | None = None,
    tried: str = "",
    secret_name: str | None = None,
) -> DiagnosedError:
    """The diagnosis of an error on `location` of the storage `where`.

    `missing`: the reason if the object or its bucket does not exist. `tried`: count and duration of tries, as text.
    `secret_name`: of the Secret with the credentials.
    """
    tried = f" ({tried})" if tried else ""
    if isinstance(error, PartialCredentialsError):
        return DiagnosedError(
            Reason.SECRET_NOT_FOUND,
            f"The Secret with the credentials for {where} has no {error.kwargs['cred_var']}, or an empty one{tried}: "
            f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in {_the_secret(secret_name)}.",
        )
    if isinstance(error, NO_CREDENTIALS):
        return no_credentials(error, where)
    if isinstance(error, ClientError):
        return _diagnose_answer(error, location, where, missing, tried, secret_name)
    if _is_untrusted_certificate(error):
        return DiagnosedError(
            Reason.STORAGE_UNREACHABLE,
            f"{where} presents a certificate that is not trusted: {error}. Set the FineTuneClass's storage.caBundle to "
            "the certificate of its CA.",
        )
    if isinstance(error, NO_ANSWER):
        return DiagnosedError(
            Reason.STORAGE_UNREACHABLE,
            f"{where} did not answer requests for {location.uri}{tried}: {error}. "
            "Check the FineTuneClass's storage.endpoint, and that Pods of this namespace may reach it.",
            retryable=True,
        )
    return DiagnosedError(Reason.FAILED, f"{where}, {location.uri}: {error}", retryable=True)


def no_credentials(error: StorageError, where: str) -> DiagnosedError:
    """The diagnosis of missing credentials for the storage `where`."""
    return DiagnosedError(
        Reason.STORAGE_DENIED,
        f"There are no credentials for {where} ({error}): set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY (in the Secret that the FineTuneClass names), or let the class name a "
        "service account with a pod identity.",
    )


def unsuitable(where: str, why: str) -> DiagnosedError:
    """The diagnosis of a storage that lacks an operation that the commit protocol needs."""
    return DiagnosedError(
        Reason.STORAGE_UNSUITABLE,
        f"{where} can't be used: {why.rstrip('. ')}. Checkpoints need conditional writes (If-None-Match: *): use a "
        "newer version of this storage, or another one.",
    )


def unsuitable_for_ranges(where: str, why: str) -> DiagnosedError:
    """The diagnosis of a storage that does not return exactly the requested bytes."""
    return DiagnosedError(
        Reason.STORAGE_UNSUITABLE,
        f"{where} can't be used: {why}. Large files are read in parts (Range, If-Match): make sure that no cache or "
        "gateway in front of the storage changes these requests or their responses, or use a newer version of it, or "
        "another storage.",
    )


def _diagnose_answer(
    error: ClientError,
    location: StorageLocation,
    where: str,
    missing: Reason | None,
    tried: str,
    secret_name: str | None,
) -> DiagnosedError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message", "")).rstrip(". ")
    if code == "NoSuchBucket":
        # What is looked for has a URI of its own; everything else is in the class's bucket.
        name = "its name: storage.bucket of the FineTuneClass" if missing is None else "the name"
        return DiagnosedError(
            missing or Reason.BUCKET_NOT_FOUND,
            f"The bucket {location.bucket!r} of {location.uri} does not exist at {where}{tried}. "
            f"Create it, or correct {name}.",
        )
    if code in REGION_CODES:
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"The bucket {location.bucket!r} is not in the region that {where} was asked in: {code}: {message}. "
            "Correct the FineTuneClass's storage.region.",
        )
    kind = error_kind(error)
    if kind is ErrorKind.DENIED:
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"{where} refused access to {location.uri}{tried}: {code}: {message}. Check the keys in "
            f"{_the_secret(secret_name)}, and that they may read, write, list and delete in "
            f"{location.bucket!r}.",
        )
    if code in MISSING_CODES:
        return DiagnosedError(
            missing or Reason.FAILED,
            f"Nothing is at {location.uri} ({where}). Upload it, or correct the URI.",
        )
    if status == 501 or code in UNSUPPORTED_CODES:
        return unsuitable(where, f"it answered {status} {code} for {location.uri}: {message}")
    return DiagnosedError(
        Reason.STORAGE_UNREACHABLE if kind is ErrorKind.UNAVAILABLE else Reason.FAILED,
        f"{where} answered {status} {code} for {location.uri}{tried}: {message}.",
        retryable=True,
    )


def _the_secret(name: str | None) -> str:
    named = "" if name is None else f" {name!r}"
    return f"the Secret{named} that the FineTuneClass names"


def _is_untrusted_certificate(error: StorageError) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def required(answer: Mapping[str, Any], member: str) -> Any:
    """A member that every complete response has: botocore parses an empty body as a response without members.

    Raises IncompleteReadError, which is retried.
    """
    if member not in answer:
        raise IncompleteReadError(actual_bytes=0, expected_bytes=1)
    return answer[member]
