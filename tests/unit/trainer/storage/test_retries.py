"""What is tried again, for how long, and with what pauses."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.storage.errors import ErrorKind, TooSlowError, diagnose, error_kind
from finetune_trainer.storage.retries import (
    DENIED_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MIN_TRIES,
    RequestState,
    pause_seconds,
    seconds_left,
)

URL = "http://s3:8333"


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


ERRORS: list[tuple[Any, ErrorKind, Reason, bool]] = [
    (answer(500, "InternalError"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(501, "NotImplemented"), ErrorKind.PERMANENT, Reason.STORAGE_UNSUITABLE, False),
    (answer(503, "SlowDown"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(429, "TooManyRequests"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(400, "RequestTimeout"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(409, "ConditionalRequestConflict"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (ConnectTimeoutError(endpoint_url=URL), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (ReadTimeoutError(endpoint_url=URL), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (
        EndpointConnectionError(endpoint_url=URL, error=socket.gaierror()),
        ErrorKind.UNAVAILABLE,
        Reason.STORAGE_UNREACHABLE,
        True,
    ),
    (ResponseStreamingError(error="cut"), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (TooSlowError(bytes_per_second=1), ErrorKind.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (
        SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"),
        ErrorKind.UNAVAILABLE,
        Reason.STORAGE_UNREACHABLE,
        True,
    ),
    (
        SSLError(endpoint_url=URL, error="[SSL: CERTIFICATE_VERIFY_FAILED]"),
        ErrorKind.PERMANENT,
        Reason.STORAGE_UNREACHABLE,
        False,
    ),
    (answer(403, "AccessDenied"), ErrorKind.DENIED, Reason.STORAGE_DENIED, False),
    (answer(403, "403"), ErrorKind.DENIED, Reason.STORAGE_DENIED, False),
    (answer(401, "Unauthorized"), ErrorKind.DENIED, Reason.STORAGE_DENIED, False),
    (answer(400, "ExpiredToken"), ErrorKind.DENIED, Reason.STORAGE_DENIED, False),
    (NoCredentialsError(), ErrorKind.DENIED, Reason.STORAGE_DENIED, False),
    (
        PartialCredentialsError(provider="mounted-secret", cred_var="AWS_SECRET_ACCESS_KEY"),
        ErrorKind.DENIED,
        Reason.SECRET_NOT_FOUND,
        False,
    ),
    (answer(404, "NoSuchBucket"), ErrorKind.DENIED, Reason.BUCKET_NOT_FOUND, False),
    (answer(400, "AuthorizationHeaderMalformed"), ErrorKind.PERMANENT, Reason.STORAGE_DENIED, False),
    (answer(404, "NoSuchKey"), ErrorKind.PERMANENT, Reason.FAILED, False),
    (answer(400, "InvalidRequest"), ErrorKind.PERMANENT, Reason.FAILED, True),
    (ParamValidationError(report="Key"), ErrorKind.PERMANENT, Reason.FAILED, True),
]


@pytest.mark.parametrize(("error", "kind", "reason", "retryable"), ERRORS, ids=lambda value: str(value)[:40])
def test_each_error_has_its_trouble_and_its_reason(
    error: Any, kind: ErrorKind, reason: Reason, retryable: bool
) -> None:
    assert error_kind(error) is kind
    failure = diagnose(error, StorageLocation("bucket", "key"), URL, tried="4 tries in 2 s").failure
    assert (failure.reason, failure.retryable) == (reason, retryable)


def test_a_denial_names_the_secret_and_is_one_sentence_after_another() -> None:
    said = {"Error": {"Code": "InvalidAccessKeyId", "Message": "No such key."}, "ResponseMetadata": {}}
    denied = ClientError(said, "GetObject")  # type: ignore[arg-type]
    message = diagnose(denied, StorageLocation("bucket", "key"), URL, secret_name="s3-keys").failure.message
    assert message == (
        f"{URL} refused access to s3://bucket/key: InvalidAccessKeyId: No such key. Check the keys in the Secret "
        "'s3-keys' that the FineTuneClass names, and that they may read, write, list and delete in 'bucket'."
    )


PATIENCE: list[tuple[ErrorKind, int, float, bool, float, float]] = [
    # kind, tries, seconds, worked before, tolerance -> seconds left
    (ErrorKind.UNAVAILABLE, 1, 0, False, 600, 600),
    (ErrorKind.UNAVAILABLE, 99, 590, False, 600, 10),
    (ErrorKind.UNAVAILABLE, 99, 601, True, 600, 0),
    (ErrorKind.UNAVAILABLE, MIN_TRIES - 1, 120, False, 0, LONGEST_PAUSE_SECONDS),
    (ErrorKind.UNAVAILABLE, MIN_TRIES, 1, False, 0, 0),
    (ErrorKind.DENIED, 1, 0, False, 600, 0),
    (ErrorKind.DENIED, 1, 0, True, 600, DENIED_SECONDS),
    (ErrorKind.DENIED, 9, DENIED_SECONDS, True, 86400, 0),
    (ErrorKind.PERMANENT, 1, 0, True, 600, 0),
]


@pytest.mark.parametrize(("kind", "tries", "seconds", "worked", "tolerance", "left"), PATIENCE)
def test_how_long_a_request_is_retried_follows_from_the_error_and_what_has_worked(
    kind: ErrorKind, tries: int, seconds: float, worked: bool, tolerance: float, left: float
) -> None:
    assert seconds_left(RequestState(kind, tries, seconds, worked), tolerance) == left


def test_a_refusal_ends_within_two_minutes_whatever_the_last_try_takes() -> None:
    assert DENIED_SECONDS + 30 <= 120


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_their_bound_and_are_never_the_same_for_all(tries: int, jitter: float) -> None:
    assert 0 < pause_seconds(tries, 0) <= pause_seconds(tries, jitter) <= pause_seconds(tries, 1)
    assert pause_seconds(tries, 0) == pause_seconds(tries, 1) / 2
    assert pause_seconds(tries, 1) <= pause_seconds(tries + 1, 1) <= LONGEST_PAUSE_SECONDS
