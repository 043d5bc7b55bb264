"""95 % confidence intervals: of one proportion, of the difference of two on the same examples, of a mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The standard normal distribution's 97.5th percentile."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % confidence interval; low <= mean <= high."""

    mean: float
    low: float
    high: float


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
    # At p = 0 and p = 1 the bound is p itself, except for rounding.
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
    mean = mean_of(values)
    adjusted = [*values, least, most]
    centre = mean_of(adjusted)
    half = student_quantile(len(adjusted) - 1) * standard_deviation(adjusted) / math.sqrt(len(adjusted))
    return Estimate(mean, low=max(least, min(mean, centre - half)), high=min(most, max(mean, centre + half)))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test (Psychometrika 12, 1947): that both are right equally often.

    Of the examples on which the two differ, each is right with probability 1/2: twice the smaller tail of that
    binomial distribution, at most 1.
    """
    differ = only_first + only_second
    # Logarithms: the binomial coefficients of 100,000 examples have 30,000 digits.
    whole = math.lgamma(differ + 1) - differ * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(count + 1) - math.lgamma(differ - count + 1))
        for count in range(min(only_first, only_second) + 1)
    )
    return min(1.0, 2 * tail)


def mean_of(values: Sequence[float]) -> float:
    """The mean, which lies between the least and the most value."""
    return min(max(values), max(min(values), math.fsum(values) / len(values)))


def standard_deviation(values: Sequence[float]) -> float:
    """Of a sample (n - 1) of two or more values."""
    mean = mean_of(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def student_quantile(degrees: int) -> float:
    """The 97.5th percentile of Student's t, to 0.2 %.

    Exact for one and two degrees of freedom, else M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions",
    1964, 26.7.5.
    """
    if degrees == 1:
        return math.tan(0.475 * math.pi)
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
