"""What a model said to an example, and what that took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune_api.evaluation_results import OutputsStatus
from finetune_api.finetuneclass import Prices
from finetune_grading.grade import GradeError
from finetune_grading.sample import Sample
from finetune_grading.statistics.medians import median

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """One output. What nobody has counted or measured is None."""

    sample: Sample
    error: GradeError | None = None
    """Why there is none: then no grader sees the sample."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    """Of the tokens, by the class's prices."""
    seconds: float | None = None
    """Until it was complete."""
    batch: int | None = None
    """Outputs of one batch were made together, in the same seconds; None: it was made alone."""
    without: Sequence[str] = ()
    """Settings of spec.generation that an API refused."""
    truncated: bool = False
    """An API ended it at generation.maxTokens."""


Outputs = Mapping[str, Sequence[Output]]
"""By model: generation.samplesPerExample outputs to each example, one after another."""


def repeat(values: Sequence[T], times: int) -> list[T]:
    """Each value so many times, one after another."""
    return [value for value in values for _ in range(times)]


def cost_of(prices: Prices | None, prompt_tokens: int, completion_tokens: int) -> float | None:
    """None without prices."""
    if prices is None:
        return None
    return (prompt_tokens * prices.prompt_per_million + completion_tokens * prices.completion_per_million) / 1e6


def outputs_status(outputs: Outputs) -> list[OutputsStatus]:
    """What the outputs of each model took; those that there are not took nothing."""
    return [_status(model, [one for one in of_model if one.error is None]) for model, of_model in outputs.items()]


def _status(model: str, outputs: Sequence[Output]) -> OutputsStatus:
    # A batch is measured once, however many outputs it makes.
    times = {("batch", one.batch) if one.batch is not None else at: one.seconds for at, one in enumerate(outputs)}
    measured = [seconds for seconds in times.values() if seconds is not None]
    found = median(measured)
    cost = _total([one.cost for one in outputs])
    return OutputsStatus(
        candidate=model,
        count=len(outputs),
        prompt_tokens=_total([one.prompt_tokens for one in outputs]),
        completion_tokens=_total([one.completion_tokens for one in outputs]),
        cost=None if cost is None else round(cost, 6),
        measurements=len(measured) or None,
        latency_milliseconds=None if found is None else round(1000 * found.mean),
        latency_low_milliseconds=None if found is None else round(1000 * found.low),
        latency_high_milliseconds=None if found is None else round(1000 * found.high),
    )


N = TypeVar("N", int, float)


def _total(numbers: Sequence[N | None]) -> N | None:
    """None unless all are known."""
    known = [number for number in numbers if number is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(numbers) else None
