"""Several samples of one example made one score."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

Reducer = Callable[[Sequence[float], float], float]
"""From the scores of an example's samples, and the least one that passes."""


def majority(scores: Sequence[float], pass_threshold: float) -> float:
    """1 where more than half of the samples pass."""
    return float(2 * _passed(scores, pass_threshold) > len(scores))


def pass_at_k(scores: Sequence[float], pass_threshold: float) -> float:
    """pass@k: 1 where one of the samples passes, of as many as are drawn."""
    return float(_passed(scores, pass_threshold) > 0)


def pass_k(scores: Sequence[float], pass_threshold: float) -> float:
    """pass^k: 1 where every sample passes."""
    return float(_passed(scores, pass_threshold) == len(scores))


REDUCERS: Mapping[str, Reducer] = {
    "Mean": lambda scores, _: statistics.fmean(scores),
    "Median": lambda scores, _: statistics.median(scores),
    "Max": lambda scores, _: max(scores),
    "Min": lambda scores, _: min(scores),
    "Majority": majority,
    "PassAtK": pass_at_k,
    "PassK": pass_k,
}
OF_PASSED = frozenset({"Majority", "PassAtK", "PassK"})
"""Those that count the samples that pass."""


def _passed(scores: Sequence[float], pass_threshold: float) -> int:
    return sum(score >= pass_threshold - 1e-9 for score in scores)
