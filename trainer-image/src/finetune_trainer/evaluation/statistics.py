"""Means of scores with 95 % confidence intervals. Pure and deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
"""The standard normal distribution's 97.5th percentile."""

RESAMPLES = 10_000
BOOTSTRAP_SEED = 17
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % confidence interval; low <= mean <= high."""

    mean: float
    low: float
    high: float


def estimate(scores: Sequence[float]) -> Estimate:
    """The mean of scores from 0 to 1: Wilson's interval where every score is 0 or 1, else a bootstrap's.

    Raises ValueError when there is no score.
    """
    if not scores:
        raise ValueError("there is no score")
    if all(score in (0, 1) for score in scores):
        return wilson(int(sum(scores)), len(scores))
    return bootstrap(scores)


def estimate_difference(scores: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """The mean gain over the baseline on the same examples, in the same order: a paired bootstrap.

    Resamples examples, and so the differences between the two scores of an example (Koehn, "Statistical Significance
    Tests for Machine Translation Evaluation", EMNLP 2004). Raises ValueError when the lengths differ, or are 0.
    """
    return bootstrap([a - b for a, b in zip(scores, baseline, strict=True)])


def wilson(successes: int, trials: int) -> Estimate:
    """Wilson's score interval of a proportion.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), from E. B. Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", JASA 22 (1927). Unlike the normal approximation it stays within 0 and 1, and
    says something where p is 0 or 1.
    """
    p = successes / trials
    shrink = 1 + Z_95**2 / trials
    centre = (p + Z_95**2 / (2 * trials)) / shrink
    half = Z_95 * math.sqrt(p * (1 - p) / trials + Z_95**2 / (4 * trials**2)) / shrink
    # At p = 0 and p = 1 the bound is p itself, but for rounding.
    return Estimate(p, low=max(0.0, min(p, centre - half)), high=min(1.0, max(p, centre + half)))


def bootstrap(values: Sequence[float]) -> Estimate:
    """The mean, and the 2.5th and 97.5th percentile of the means of 10,000 resamples, with a fixed seed.

    The percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    Below some twenty values the interval is too narrow; for one it is a point.
    Raises ValueError when there is no value.
    """
    if not values:
        raise ValueError("there is no value")
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, _DRAWS_AT_ONCE // len(array))
    means = np.concatenate(
        [
            array[generator.integers(len(array), size=(min(rows, RESAMPLES - start), len(array)))].mean(axis=1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    low, high = (float(bound) for bound in np.quantile(means, [0.025, 0.975]))
    return Estimate(mean, low=min(mean, low), high=max(mean, high))
