"""How many requests a canary needs until a check passes: by the check itself, of as many of what was counted. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from finetune_api.modeldeployment import CanaryCheck, TrafficCounts
from finetune_operator.modeldeployment.canary.checks import passes
from finetune_operator.modeldeployment.canary.statistics import GROWTH

MOST_REQUESTS = 1_000_000
SIGMA = 0.7
"""Of the logarithms of times and lengths of answers, as they are with language models."""
_SAMPLE = 100_000
_NUMBERS = ("requests", "errors", "refused", "left", "answers", "tokens", "token_squares")
_HISTOGRAMS = ("first_token", "per_token")


def requests_needed(check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts) -> int | None:
    """Requests of the canary from which on it would pass if both sides went on as they did; None: with no number."""
    return _fewest(check, stable, canary, max(1, canary.requests)) if canary.requests > 0 else None


def requests_for(check: CanaryCheck, *, percent: int, error_percent: float) -> int | None:
    """Requests of a canary that gets `percent` of all and is exactly as good as what serves, until it passes."""
    expected = _answers(error_percent)
    return _fewest(check, _times(expected, (100 - percent) / percent), expected, 1)


def _fewest(check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts, low: int) -> int | None:
    def would_pass(requests: int) -> bool:
        factor = requests / canary.requests
        return passes(check, _times(stable, factor), _times(canary, factor))

    high = MOST_REQUESTS
    if not would_pass(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if would_pass(middle) else (middle + 1, high)
    return high


def _times(counts: TrafficCounts, factor: float) -> TrafficCounts:
    """So many times what was counted; fractions are no harm, as nothing of it is kept."""
    numbers: dict[str, object] = {name: getattr(counts, name) * factor for name in _NUMBERS}
    for name in _HISTOGRAMS:
        histogram: Mapping[str, int] = getattr(counts, name)
        numbers[name] = {bucket: count * factor for bucket, count in histogram.items()}
    return counts.model_copy(update=numbers)


def _answers(error_percent: float) -> TrafficCounts:
    """What is expected of many requests, each of which is a stream."""
    normal, width = NormalDist(0, SIGMA), math.log(GROWTH)
    bounds = range(-50, 50)
    shares = {str(one): normal.cdf((one + 1) * width) - normal.cdf(one * width) for one in bounds}
    histogram = {bucket: round(_SAMPLE * share) for bucket, share in shares.items() if _SAMPLE * share >= 1}
    mean = 200 * math.exp(SIGMA**2 / 2)
    return TrafficCounts(
        requests=_SAMPLE,
        errors=round(_SAMPLE * error_percent / 100),
        first_token=histogram,
        per_token=histogram,
        answers=_SAMPLE,
        tokens=round(_SAMPLE * mean),
        token_squares=round(_SAMPLE * mean**2 * math.exp(SIGMA**2)),
    )
