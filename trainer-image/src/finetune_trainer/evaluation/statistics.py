"""Means of scores with 95 % confidence intervals. Pure and deterministic.

An interval over a finite number of examples is never a point: where all scores are the same, or all differences are
none, it still says how much so many examples can leave unseen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
"""The standard normal distribution's 97.5th percentile."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % confidence interval; low <= mean <= high."""

    mean: float
    low: float
    high: float


def estimate(scores: Sequence[float]) -> Estimate:
    """The mean of scores from 0 to 1: Wilson's interval where every score is 0 or 1, else Student's, adjusted.

    Raises ValueError for an empty sample.
    """
    if not scores:
        raise ValueError("there is no score")
    if _is_binary(scores):
        return wilson(int(sum(scores)), len(scores))
    return adjusted_student(scores, least=0.0, most=1.0)


def estimate_difference(scores: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """The mean gain over the baseline on the same examples, in the same order, from scores from 0 to 1.

    Newcombe's interval where every score is 0 or 1, else Student's of the differences, adjusted. Raises ValueError when
    the lengths differ, or are 0.
    """
    pairs = list(zip(scores, baseline, strict=True))
    if not pairs:
        raise ValueError("there is no score")
    if _is_binary(scores) and _is_binary(baseline):
        both, neither = pairs.count((1, 1)), pairs.count((0, 0))
        return newcombe(both, pairs.count((1, 0)), pairs.count((0, 1)), neither)
    return adjusted_student([a - b for a, b in pairs], least=-1.0, most=1.0)


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


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> Estimate:
    """The difference of two proportions on the same examples: how many both got right, one of them, or neither.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998): Wilson's intervals of the two proportions, squared and added, less
    what their correlation phi (corrected for continuity where it is positive) makes of them.
    """
    total = both + only_first + only_second + neither
    first, second = wilson(both + only_first, total), wilson(both + only_second, total)
    difference = first.mean - second.mean
    phi = _phi(both, only_first, only_second, neither)
    below = _joined(first.mean - first.low, second.high - second.mean, phi)
    above = _joined(first.high - first.mean, second.mean - second.low, phi)
    return Estimate(difference, low=max(-1.0, difference - below), high=min(1.0, difference + above))


def adjusted_student(values: Sequence[float], *, least: float, most: float) -> Estimate:
    """The mean of values of a bounded scale: Student's t interval of the sample and of both ends of the scale.

    Without these two pseudo-observations equal values would have an interval of no width, and few values one that is
    much too narrow (a rare bad answer is not in a small sample). They are what A. Agresti and B. Caffo, "Simple and
    effective confidence intervals for proportions and differences of proportions result from adding two successes and
    two failures", The American Statistician 54 (2000), add to each sample of zeros and ones: a success and a failure.
    Raises ValueError for an empty sample.
    """
    if not values:
        raise ValueError("there is no value")
    mean = float(np.mean(values))
    adjusted = np.array([*values, least, most], dtype=np.float64)
    centre = float(adjusted.mean())
    half = student_quantile(len(adjusted) - 1) * float(adjusted.std(ddof=1)) / math.sqrt(len(adjusted))
    return Estimate(mean, low=max(least, min(mean, centre - half)), high=min(most, max(mean, centre + half)))


def student_quantile(degrees: int) -> float:
    """The 97.5th percentile of Student's t with two or more degrees of freedom, to 0.2 %.

    Exact for two, else M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 1964, 26.7.5.
    """
    if degrees == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = Z_95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


def _is_binary(scores: Sequence[float]) -> bool:
    return all(score in (0, 1) for score in scores)


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """The correlation of two answers, as Newcombe's method 10 has it."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    covariance: float = both * neither - only_first * only_second
    if covariance > 0:
        covariance = max(0.0, covariance - (both + only_first + only_second + neither) / 2)
    return covariance / math.sqrt(margins)


def _joined(first: float, second: float, phi: float) -> float:
    """A square root whose argument rounding may make slightly negative."""
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))
