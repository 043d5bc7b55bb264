"""What errors of the storage mean: whether to retry, and how to report them. Pure."""

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
from finetune_api.sources import S3Location
from finetune_trainer.process.failures import DiagnosedError

AUTHENTICATION_CODES = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
"""The keys themselves are refused, whatever they ask for."""
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


class Trouble(Enum):
    """Whether retrying can help."""

    UNAVAILABLE = "unavailable"
    """It passes when the storage is back."""
    REFUSED = "refused"
    """It passes when the keys are rotated or the storage has read its own settings; else only a person can help."""
    FINAL = "final"
    """The answer will be the same."""


def trouble_of(error: StorageError) -> Trouble:
    """The kind of an error of botocore."""
    if isinstance(error, NO_CREDENTIALS):
        return Trouble.REFUSED
    if not isinstance(error, ClientError):
        return Trouble.UNAVAILABLE if isinstance(error, NO_ANSWER) and not _distrusts(error) else Trouble.FINAL
    code, status = code_of(error), status_of(error)
    if status == 501 or code in UNSUPPORTED_CODES:
        return Trouble.FINAL
    if status >= 500 or status == 429 or code in UNAVAILABLE_CODES:
        return Trouble.UNAVAILABLE
    if status in (401, 403) or code in DENIED_CODES or code == "NoSuchBucket":
        return Trouble.REFUSED
    return Trouble.FINAL


def code_of(error: StorageError) -> str:
    """The S3 error code; empty when there was no response."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: ClientError) -> int:
    """The HTTP status of the response."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def diagnose(
    error: StorageError, location: S3Location, where: str, missing: Reason | None = None, tried: str = ""
) -> DiagnosedError:
    """The diagnosis of an error on `location` of the storage `where`.

    `missing`: the reason when the object or its bucket is not there. `tried`: how often and how long, in words.
    """
    tried = f" ({tried})" if tried else ""
    if isinstance(error, PartialCredentialsError):
        return DiagnosedError(
            Reason.SECRET_NOT_FOUND,
            f"The Secret with the credentials for {where} has no {error.kwargs['cred_var']}, or an empty one{tried}: "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret that the FineTuneClass names.",
        )
    if isinstance(error, NO_CREDENTIALS):
        return no_credentials(error, where)
    if isinstance(error, ClientError):
        return _diagnose_answer(error, location, where, missing, tried)
    if _distrusts(error):
        return DiagnosedError(
            Reason.STORAGE_UNREACHABLE,
            f"{where} shows a certificate that is not trusted: {error}. Set the FineTuneClass's storage.caBundle to "
            "the certificate of its authority.",
        )
    if isinstance(error, NO_ANSWER):
        return DiagnosedError(
            Reason.STORAGE_UNREACHABLE,
            f"{where} did not answer for {location.uri}{tried}: {error}. "
            "Check the FineTuneClass's storage.endpoint, and that Pods of this namespace may reach it.",
            retryable=True,
        )
    return DiagnosedError(Reason.FAILED, f"{where}, {location.uri}: {error}", retryable=True)


def no_credentials(error: StorageError, where: str) -> DiagnosedError:
    """The diagnosis when there are no credentials for the storage `where`."""
    return DiagnosedError(
        Reason.STORAGE_DENIED,
        f"There are no credentials for {where} ({error}): set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY (in the Secret that the FineTuneClass names), or let the class name a "
        "service account with a pod identity.",
    )


def unsuitable(where: str, why: str) -> DiagnosedError:
    """The diagnosis of a storage that lacks an operation which the protocol needs."""
    return DiagnosedError(
        Reason.STORAGE_UNSUITABLE,
        f"{where} can't be used: {why.rstrip('. ')}. Checkpoints rest on conditional writes (If-None-Match: *): use a "
        "newer version of this storage, or another one.",
    )


def unsuitable_for_ranges(where: str, why: str) -> DiagnosedError:
    """The diagnosis of a storage that can't be trusted to read the bytes that were asked for."""
    return DiagnosedError(
        Reason.STORAGE_UNSUITABLE,
        f"{where} can't be used: {why}. Large files are read in parts (Range, If-Match): let no cache or gateway "
        "before the storage change these requests or their answers, use a newer version of it, or another one.",
    )


def _diagnose_answer(
    error: ClientError, location: S3Location, where: str, missing: Reason | None, tried: str
) -> DiagnosedError:
    code, status = code_of(error), status_of(error)
    said = str(error.response.get("Error", {}).get("Message", ""))
    if code == "NoSuchBucket":
        return DiagnosedError(
            missing or Reason.BUCKET_NOT_FOUND,
            f"The bucket {location.bucket!r} of {location.uri} does not exist at {where}{tried}. "
            "Create it, or correct the name.",
        )
    if code in REGION_CODES:
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"The bucket {location.bucket!r} is not in the region that {where} was asked in: {code}: {said}. "
            "Correct the FineTuneClass's storage.region.",
        )
    trouble = trouble_of(error)
    if trouble is Trouble.REFUSED:
        return DiagnosedError(
            Reason.STORAGE_DENIED,
            f"{where} refused access to {location.uri}{tried}: {code}: {said}. Check the keys in the "
            f"Secret that the FineTuneClass names, and that they may read, write, list and delete in "
            f"{location.bucket!r}.",
        )
    if code in MISSING_CODES:
        return DiagnosedError(
            missing or Reason.FAILED,
            f"Nothing is at {location.uri} ({where}). Upload it, or correct the URI.",
        )
    if status == 501 or code in UNSUPPORTED_CODES:
        return unsuitable(where, f"it answered {status} {code} for {location.uri}: {said}")
    return DiagnosedError(
        Reason.STORAGE_UNREACHABLE if trouble is Trouble.UNAVAILABLE else Reason.FAILED,
        f"{where} answered {status} {code} for {location.uri}{tried}: {said}",
        retryable=True,
    )


def _distrusts(error: StorageError) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def required(answer: Mapping[str, Any], member: str) -> Any:
    """A member that every complete response has. botocore parses an empty body as a response without members.

    Raises IncompleteReadError, which is tried again.
    """
    if member not in answer:
        raise IncompleteReadError(actual_bytes=0, expected_bytes=1)
    return answer[member]
