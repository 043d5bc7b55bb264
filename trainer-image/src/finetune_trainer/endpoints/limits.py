"""Rate limits of an API, and the budget of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

import orjson

from finetune_api.graders import GraderErrorCode
from finetune_api.model_usage import Budget
from finetune_api.sources import StorageLocation
from finetune_grading.grade import RowError
from finetune_trainer.storage.storage import Storage

Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """Limits the requests per minute, and sends none while the API has asked for a pause."""

    def __init__(self, requests_per_minute: int, sleep: Sleep = asyncio.sleep) -> None:
        self._seconds = 60 / requests_per_minute
        self._sleep = sleep
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until a request may be sent."""
        while (now := time.monotonic()) < self._next:
            await self._sleep(self._next - now)
        self._next = now + self._seconds

    def pause(self, seconds: float) -> None:
        """Send no request for this long."""
        self._next = max(self._next, time.monotonic() + seconds)


def ledger_of(answers: StorageLocation, uid: str, run_key: str) -> StorageLocation:
    """Where a run's ledger is: beside the answers."""
    return answers.join("budgets", f"{uid}-{run_key}.json")


class Ledger:
    """What a run has used of its budget, over all models and tries: kept in the storage, before it is used.

    A try that is killed has counted every request that it may have sent. `object_` is the run's own; without a budget
    nothing is read or written. `field` is the budget's place in the spec.
    """

    def __init__(self, budget: Budget, storage: Storage, object_: StorageLocation, field: str = "spec.budget") -> None:
        self._budget = budget
        self._field = field
        self._storage = storage
        self._object = object_
        self._used = _Used()
        self._is_read = budget.requests is None and budget.tokens is None
        self._is_limited = not self._is_read
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._changes, self._written = 0, 0

    async def take(self) -> None:
        """Count a request that is about to be sent. Raises RowError (BudgetExceeded), DiagnosedError."""
        await self._read()
        for used, most, what in (
            (self._used.requests, self._budget.requests, "requests"),
            (self._used.tokens, self._budget.tokens, "tokens"),
        ):
            if most is not None and used >= most:
                message = f"{self._field}.{what} ({most}) is used up."
                raise RowError(GraderErrorCode.BUDGET_EXCEEDED, message)
        self._used = replace(self._used, requests=self._used.requests + 1)
        await self._write()

    async def add_tokens(self, tokens: int) -> None:
        """Count those of an answer. Raises DiagnosedError."""
        self._used = replace(self._used, tokens=self._used.tokens + tokens)
        await self._write()

    def _writing(self) -> asyncio.Lock:
        """A lock belongs to one event loop, and each part of an evaluation that asks has its own."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    async def _read(self) -> None:
        async with self._writing():
            if not self._is_read:
                self._used = _read_used(await asyncio.to_thread(self._storage.find, self._object))
                self._is_read = True

    async def _write(self) -> None:
        """What is counted while one write is under way is written by the next one, for all who wait."""
        if not self._is_limited:
            return
        self._changes += 1
        mine = self._changes
        async with self._writing():
            if self._written < mine:
                changes, content = self._changes, orjson.dumps(asdict(self._used))
                await asyncio.to_thread(self._storage.write, self._object, content)
                self._written = changes


@dataclass(frozen=True)
class _Used:
    requests: int = 0
    tokens: int = 0


def _read_used(stored: bytes | None) -> _Used:
    """Nothing, where nothing is, or something else."""
    try:
        value = orjson.loads(stored or b"null")
    except orjson.JSONDecodeError:
        return _Used()
    match value:
        case {"requests": int(requests), "tokens": int(tokens)} if requests >= 0 and tokens >= 0:
            return _Used(requests, tokens)
    return _Used()
