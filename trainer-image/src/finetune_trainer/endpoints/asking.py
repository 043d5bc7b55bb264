"""Asking the models of a class: the connections while a part of a run asks, and what it used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from finetune_api.finetuneclass import Prices
from finetune_api.model_usage import ModelUsage
from finetune_grading.judge import StopGradingError
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.process.progress_log import log_progress

T = TypeVar("T")


def ask_all(ask: Callable[[], Awaitable[T]], models: Mapping[str, AskedModel], doing: str) -> T:
    """Run `ask` while these models can be asked; returns its result. Raises DiagnosedError if one can't be asked."""

    async def run() -> T:
        async with AsyncExitStack() as stack:
            for asked in models.values():
                await stack.enter_async_context(asked.endpoint.connected())
            return await ask()

    def progress() -> dict[str, object]:
        return {name: f"{asked.endpoint.usage.requests} requests" for name, asked in models.items()}

    try:
        with log_progress(doing, progress):
            return asyncio.run(run())
    except StopGradingError as stop:
        assert stop.__cause__ is not None, "it says why"
        raise stop.__cause__ from None


def usage_of(models: Mapping[str, AskedModel]) -> list[ModelUsage]:
    """How often each model was asked, and what that cost by the class's prices."""
    return [_with_cost(model) for model in models.values()]


def cost_of(prices: Prices | None, prompt_tokens: int, completion_tokens: int) -> float | None:
    """The cost of a request by these prices; None without them."""
    if prices is None:
        return None
    return (prompt_tokens * prices.prompt_per_million + completion_tokens * prices.completion_per_million) / 1e6


def _with_cost(model: AskedModel) -> ModelUsage:
    usage = model.endpoint.usage
    cost = cost_of(model.endpoint.config.prices, usage.prompt_tokens, usage.completion_tokens)
    return usage if cost is None else usage.model_copy(update={"cost": round(cost, 6)})
