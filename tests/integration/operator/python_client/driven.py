"""Drives the asynchronous client as the synchronous one is used, so that both pass the same tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

ASYNC = "finetune_client.aio."


class Driven:
    """An asynchronous object whose coroutines are run, and whose asynchronous generators are read, at once."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._called(found) if callable(found) else self._driven(found)

    def _called(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            found = function(*arguments, **named)
            if inspect.isasyncgen(found):
                return iter(self._runner.run(_read(found)))
            return self._driven(self._runner.run(_awaited(found)) if inspect.isawaitable(found) else found)

        return call

    def _driven(self, found: Any) -> Any:
        if isinstance(found, list):
            return [self._driven(one) for one in found]
        return Driven(found, self._runner) if type(found).__module__.startswith(ASYNC) else found


async def _awaited(found: Any) -> Any:
    return await found


async def _read(found: Any) -> list[Any]:
    return [one async for one in found]
