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
from finetune_api.sources import S3Location
from finetune_trainer.storage.errors import TooSlowError, Trouble, diagnose, trouble_of
from finetune_trainer.storage.retries import (
    LEAST_TRIES,
    LONGEST_PAUSE_SECONDS,
    REFUSED_SECONDS,
    Trial,
    pause_seconds,
    seconds_left,
)

URL = "http://s3:8333"


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


ERRORS: list[tuple[Any, Trouble, Reason, bool]] = [
    (answer(500, "InternalError"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(501, "NotImplemented"), Trouble.FINAL, Reason.STORAGE_UNSUITABLE, False),
    (answer(503, "SlowDown"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(429, "TooManyRequests"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(400, "RequestTimeout"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (answer(409, "ConditionalRequestConflict"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (ConnectTimeoutError(endpoint_url=URL), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (ReadTimeoutError(endpoint_url=URL), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (
        EndpointConnectionError(endpoint_url=URL, error=socket.gaierror()),
        Trouble.UNAVAILABLE,
        Reason.STORAGE_UNREACHABLE,
        True,
    ),
    (ResponseStreamingError(error="cut"), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (TooSlowError(bytes_per_second=1), Trouble.UNAVAILABLE, Reason.STORAGE_UNREACHABLE, True),
    (
        SSLError(endpoint_url=URL, error="EOF occurred in violation of protocol"),
        Trouble.UNAVAILABLE,
        Reason.STORAGE_UNREACHABLE,
        True,
    ),
    (
        SSLError(endpoint_url=URL, error="[SSL: CERTIFICATE_VERIFY_FAILED]"),
        Trouble.FINAL,
        Reason.STORAGE_UNREACHABLE,
        False,
    ),
    (answer(403, "AccessDenied"), Trouble.REFUSED, Reason.STORAGE_DENIED, False),
    (answer(403, "403"), Trouble.REFUSED, Reason.STORAGE_DENIED, False),
    (answer(401, "Unauthorized"), Trouble.REFUSED, Reason.STORAGE_DENIED, False),
    (answer(400, "ExpiredToken"), Trouble.REFUSED, Reason.STORAGE_DENIED, False),
    (NoCredentialsError(), Trouble.REFUSED, Reason.STORAGE_DENIED, False),
    (
        PartialCredentialsError(provider="mounted-secret", cred_var="AWS_SECRET_ACCESS_KEY"),
        Trouble.REFUSED,
        Reason.SECRET_NOT_FOUND,
        False,
    ),
    (answer(404, "NoSuchBucket"), Trouble.REFUSED, Reason.BUCKET_NOT_FOUND, False),
    (answer(400, "AuthorizationHeaderMalformed"), Trouble.FINAL, Reason.STORAGE_DENIED, False),
    (answer(404, "NoSuchKey"), Trouble.FINAL, Reason.FAILED, False),
    (answer(400, "InvalidRequest"), Trouble.FINAL, Reason.FAILED, True),
    (ParamValidationError(report="Key"), Trouble.FINAL, Reason.FAILED, True),
]


@pytest.mark.parametrize(("error", "trouble", "reason", "retryable"), ERRORS, ids=lambda value: str(value)[:40])
def test_each_error_has_its_trouble_and_its_reason(
    error: Any, trouble: Trouble, reason: Reason, retryable: bool
) -> None:
    assert trouble_of(error) is trouble
    failure = diagnose(error, S3Location("bucket", "key"), URL, tried="4 tries in 2 s").failure
    assert (failure.reason, failure.retryable) == (reason, retryable)


PATIENCE: list[tuple[Trouble, int, float, bool, float, float]] = [
    # trouble, tries, seconds, worked before, tolerance -> seconds left
    (Trouble.UNAVAILABLE, 1, 0, False, 600, 600),
    (Trouble.UNAVAILABLE, 99, 590, False, 600, 10),
    (Trouble.UNAVAILABLE, 99, 601, True, 600, 0),
    (Trouble.UNAVAILABLE, LEAST_TRIES - 1, 120, False, 0, LONGEST_PAUSE_SECONDS),
    (Trouble.UNAVAILABLE, LEAST_TRIES, 1, False, 0, 0),
    (Trouble.REFUSED, 1, 0, False, 600, 0),
    (Trouble.REFUSED, 1, 0, True, 600, REFUSED_SECONDS),
    (Trouble.REFUSED, 9, REFUSED_SECONDS, True, 86400, 0),
    (Trouble.FINAL, 1, 0, True, 600, 0),
]


@pytest.mark.parametrize(("trouble", "tries", "seconds", "worked", "tolerance", "left"), PATIENCE)
def test_patience(trouble: Trouble, tries: int, seconds: float, worked: bool, tolerance: float, left: float) -> None:
    assert seconds_left(Trial(trouble, tries, seconds, worked), tolerance) == left


def test_a_refusal_ends_within_two_minutes_whatever_the_last_try_takes() -> None:
    assert REFUSED_SECONDS + 30 <= 120


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_to_their_bound_and_are_never_the_same_for_all(tries: int, jitter: float) -> None:
    assert 0 < pause_seconds(tries, 0) <= pause_seconds(tries, jitter) <= pause_seconds(tries, 1)
    assert pause_seconds(tries, 0) == pause_seconds(tries, 1) / 2
    assert pause_seconds(tries, 1) <= pause_seconds(tries + 1, 1) <= LONGEST_PAUSE_SECONDS
