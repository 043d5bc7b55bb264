"""Confidence limits of differences and ratios of two samples, by one method, MOVER: the limits of each side are joined
as R. G. Newcombe (Statistics in Medicine 17, 1998, method 10) does for shares, and G. Y. Zou and A. Donner (Statistics
in Medicine 27, 2008) for any two estimates.

Shares have Wilson's limits. A quantile has those of the share of the sample that is below it, read from the histogram,
so that no distribution is assumed. A mean has the normal ones, of its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

GROWTH = 1.1
"""Of the bounds of a histogram's buckets, as the gateway has them."""


@dataclass(frozen=True)
class Estimate:
    """A value and its limits; of ratios, all three are logarithms."""

    value: float
    low: float
    high: float


def quantile_of_normal(alpha: float) -> float:
    """How many standard errors a one-sided limit with this error is away."""
    return NormalDist().inv_cdf(1 - alpha)


def share(count: int, total: int, z: float) -> Estimate:
    """A share, with Wilson's limits."""
    p = count / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half))


def log_quantile(histogram: Mapping[str, int], q: float, z: float) -> Estimate:
    """The logarithm of a quantile; a limit that the sample is too small for is infinite."""
    counts = sorted((int(number), count) for number, count in histogram.items() if count > 0)
    total = sum(count for _, count in counts)
    below = share(round(q * total), total, z)
    high = math.inf if math.ceil(below.high * total) >= total else _at(counts, below.high * total)
    return Estimate(_at(counts, q * total), _at(counts, below.low * total), high)


def _at(counts: list[tuple[int, int]], rank: float) -> float:
    seen = 0
    for number, count in counts:
        seen += count
        if seen >= rank:
            return (number + 0.5) * math.log(GROWTH)
    return (counts[-1][0] + 0.5) * math.log(GROWTH)


def log_mean(count: int, total: int, squares: int, z: float) -> Estimate:
    """The logarithm of a mean that is above 0."""
    mean = total / count
    variance = max(0.0, squares / count - mean * mean) * count / max(1, count - 1)
    error = math.sqrt(variance / count) / mean
    value = math.log(mean)
    return Estimate(value, value - z * error, value + z * error)


def difference(canary: Estimate, stable: Estimate) -> Estimate:
    """Of two independent samples."""
    value = canary.value - stable.value
    low = math.hypot(canary.value - canary.low, stable.high - stable.value)
    high = math.hypot(canary.high - canary.value, stable.value - stable.low)
    return Estimate(value, value - low, value + high)
