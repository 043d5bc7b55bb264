"""The retry policy of requests to the storage.

| error                                                    | retried                                            |
|----------------------------------------------------------|----------------------------------------------------|
| no response, closed or hung connection, 5xx, 429,        | for outageToleranceSeconds, at least MIN_TRIES     |
| SlowDown                                                 |                                                    |
| the same, of an endpoint that has not answered yet (**)  | for UNANSWERED_SECONDS, if that is less            |
| 401, 403, NoSuchBucket for what worked before (*)        | for DENIED_SECONDS: keys are being rotated, or a   |
|                                                          | starting storage has not loaded its settings yet   |
| anything else, and the same errors of what never worked  | never                                              |
| deletions (`fail_fast`), whose failure does no harm      | MIN_TRIES without a response, otherwise never      |

(*) Rejected credentials worked before if any request did; a bucket, if any request to it did; access, if the same
operation on the bucket did. `proven`: everything counts as having worked, in an earlier Pod (preflight).
(**) Only with `reports_unanswered`: the endpoint may be wrong, which the log of a Pod that waits would hide.

The pause between tries doubles, with jitter, so that many ranks do not retry at the same time.
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.client import S3Client
from finetune_trainer.storage.errors import (
    AUTHENTICATION_CODES,
    NO_CREDENTIALS,
    ErrorKind,
    StorageError,
    code_of,
    diagnose,
    error_kind,
)

T = TypeVar("T")

MIN_TRIES = 4
DENIED_SECONDS = 90.0
UNANSWERED_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True)
class RequestState:
    """The state of one request: its tries so far, and the seconds since the first error of this kind."""

    kind: ErrorKind
    tries: int
    seconds: float
    worked_before: bool


def seconds_left(state: RequestState, outage_seconds: float) -> float:
    """For how many more seconds the request is retried; 0 if it fails now."""
    if state.kind is ErrorKind.UNAVAILABLE:
        minimum = LONGEST_PAUSE_SECONDS if state.tries < MIN_TRIES else 0.0
        return max(0.0, outage_seconds - state.seconds, minimum)
    if state.kind is ErrorKind.DENIED and state.worked_before:
        return max(0.0, DENIED_SECONDS - state.seconds)
    return 0.0


def pause_seconds(tries: int, jitter: float) -> float:
    """Seconds to wait after the `tries`-th try: exponential backoff with jitter (0 to 1) over its upper half."""
    doubled: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16))
    return doubled * (1 + jitter) / 2


class Retries:
    """The requests of one storage. Thread-safe."""

    def __init__(
        self, client: S3Client, outage_seconds: float, *, proven: bool, reports_unanswered: bool = False
    ) -> None:
        self._client = client
        self._outage_seconds = outage_seconds
        self._proven = proven
        self._first_answer_seconds = UNANSWERED_SECONDS if reports_unanswered else outage_seconds
        self._answered = False
        self._worked: set[tuple[str, str]] = set()
        self._waiting_log = WaitingLog(client.where)

    def request(
        self,
        operation: str,
        location: StorageLocation,
        send: Callable[[], T],
        missing: Reason | None = None,
        *,
        fail_fast: bool = False,
    ) -> T:
        """The response of `send`, retried as the policy allows.

        `operation`: its name in S3's API. `fail_fast`: do not wait for the end of an outage. Raises DiagnosedError,
        with the reason `missing` if the object or its bucket does not exist.
        """
        first = time.monotonic()
        since: dict[ErrorKind, float] = {}
        tries = 0
        with ExitStack() as waiting:
            while True:
                began = time.monotonic()
                tries += 1
                try:
                    answer = send()
                except (BotoCoreError, ClientError) as error:
                    kind = error_kind(error)
                    seconds = time.monotonic() - since.setdefault(kind, began)
                    worked_before = not fail_fast and self._worked_before(operation, location, error)
                    state = RequestState(kind, tries, seconds, worked_before)
                    self._answered = self._answered or kind is not ErrorKind.UNAVAILABLE
                    left = seconds_left(state, 0 if fail_fast else self._patience())
                    if left <= 0:
                        tried = f"{tries} tries in {time.monotonic() - first:.0f} s" if tries > 1 else ""
                        raise self._diagnosed(error, location, missing, tried) from error
                    if tries == 1:
                        message = self._client.hide_credentials(f"{operation} {location.uri}: {error}")
                        waiting.enter_context(self._waiting_log.waiting(message))
                    self._waiting_log.seconds_left = left
                    time.sleep(min(left, pause_seconds(tries, random.random())))
                else:
                    self._answered = True
                    self._worked.add((location.bucket, operation))
                    return answer

    def _patience(self) -> float:
        return self._outage_seconds if self._answered else min(self._outage_seconds, self._first_answer_seconds)

    def _worked_before(self, operation: str, location: StorageLocation, error: StorageError) -> bool:
        worked = tuple(self._worked)
        if self._proven:
            return True
        if isinstance(error, NO_CREDENTIALS) or code_of(error) in AUTHENTICATION_CODES:
            return bool(worked)
        if code_of(error) == "NoSuchBucket":
            return any(bucket == location.bucket for bucket, _ in worked)
        return (location.bucket, operation) in worked

    def _diagnosed(
        self, error: StorageError, location: StorageLocation, missing: Reason | None, tried: str
    ) -> DiagnosedError:
        failure = diagnose(error, location, self._client.where, missing, tried, self._client.secret_name).failure
        message = self._client.hide_credentials(failure.message)
        return DiagnosedError.of(failure.model_copy(update={"message": message}))


class WaitingLog:
    """Logs regularly while any request is waiting for a retry. Thread-safe."""

    def __init__(self, where: str) -> None:
        self.seconds_left = 0.0
        self._where = where
        self._lock = threading.Lock()
        self._count = 0
        self._heartbeat = ExitStack()

    @contextmanager
    def waiting(self, message: str) -> Iterator[None]:
        """Log the error, and then every few seconds since when and for how much longer it is retried."""
        with self._lock:
            self._count += 1
            if self._count == 1:
                since = datetime.now(UTC).strftime("%H:%M:%S")
                detail: dict[str, object] = {"since": since}
                _log.warning(message)
                self._heartbeat.enter_context(log_progress(f"retrying {self._where}", lambda: detail | self._left()))
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    self._heartbeat.close()

    def _left(self) -> dict[str, object]:
        return {"seconds_left": round(self.seconds_left)}
