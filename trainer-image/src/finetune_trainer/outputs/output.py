"""A model's output for an example, with its tokens, cost and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune_api.evaluation import OutputsStatus
from finetune_grading.grade import GradeError
from finetune_grading.sample import Sample
from finetune_grading.statistics.medians import median

T = TypeVar("T")


@dataclass(frozen=True)
class Output:
    """One output; whatever was not counted or measured is None."""

    sample: Sample
    error: GradeError | None = None
    """Why there is no output; no grader gets the sample then."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    """The cost of the tokens by the class's prices."""
    seconds: float | None = None
    """How long it took to complete."""
    batch: int | None = None
    """The batch in which it was generated, during the same seconds as the others in it; None: it was alone."""
    without: Sequence[str] = ()
    """The settings of spec.generation that the API refused, so that it was asked without them."""
    truncated: bool = False
    """Whether the API cut it off at generation.maxTokens."""
    finish_reason: str | None = None
    """What the API says ended it; None: it says nothing, or there is no API."""
    is_unfinished: bool = False
    """Whether a model that is loaded here was cut off, at generation.maxTokens or at the end of its context."""
    refused: bool = False
    """Whether the API marks it as a refusal; the sample has its text."""


Outputs = Mapping[str, Sequence[Output]]
"""By model: generation.samplesPerExample outputs for each example, one example after another."""


def repeat(values: Sequence[T], times: int) -> list[T]:
    """Each value repeated so many times, in order."""
    return [value for value in values for _ in range(times)]


def outputs_status(outputs: Outputs) -> list[OutputsStatus]:
    """The tokens, cost and latency of each model's outputs, without those that are missing."""
    return [_status(model, [one for one in of_model if one.error is None]) for model, of_model in outputs.items()]


def _status(model: str, outputs: Sequence[Output]) -> OutputsStatus:
    # A batch is counted once, however many outputs it has.
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
    """The sum; None unless all values are known."""
    known = [number for number in numbers if number is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(numbers) else None
