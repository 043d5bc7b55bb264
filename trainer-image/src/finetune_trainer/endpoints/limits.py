"""How fast an API is asked, and how much in one run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from finetune_api.evaluation import Budget
from finetune_api.graders import GraderErrorCode
from finetune_grading.grade import RowError

Sleep = Callable[[float], Awaitable[None]]


class Pace:
    """Turns to send a request: so many in a minute, and none while the API has asked for a pause."""

    def __init__(self, requests_per_minute: int, sleep: Sleep = asyncio.sleep) -> None:
        self._seconds = 60 / requests_per_minute
        self._sleep = sleep
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next one."""
        while (now := time.monotonic()) < self._next:
            await self._sleep(self._next - now)
        self._next = now + self._seconds

    def pause(self, seconds: float) -> None:
        """Let everybody wait so long."""
        self._next = max(self._next, time.monotonic() + seconds)


@dataclass
class Ledger:
    """What a run has used of its budget, over all models and tries."""

    budget: Budget
    requests: int = 0
    tokens: int = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.budget.requests is not None or self.budget.tokens is not None

    def take(self) -> None:
        """Count a request that is about to be sent. Raises RowError (BudgetExceeded)."""
        for used, most, what in (
            (self.requests, self.budget.requests, "requests"),
            (self.tokens, self.budget.tokens, "tokens"),
        ):
            if most is not None and used >= most:
                message = f"spec.budget.{what} ({most}) is used up."
                raise RowError(GraderErrorCode.BUDGET_EXCEEDED, message)
        self.requests += 1

    def add(self, *, requests: int = 0, tokens: int = 0) -> None:
        """Count what has been used."""
        self.requests += requests
        self.tokens += tokens
