"""What trainings on twice the examples would be measured to bring: a posterior predictive distribution. Pure.

The mean error of a size is that of a curve, plus the curve's misfit, plus the noise of its trainings:

- The curve: a + b * (n / N)^-c. The posterior of a and c is computed on a grid, each with the posterior of b >= 0, a
  truncated normal distribution, by its quantiles.
- The misfit: a Gaussian process in log n, as for a computer model in Kennedy and O'Hagan, "Bayesian calibration of
  computer models" (2001), whose scale is on the grid, too: as large as the sizes let it be.
- The noise: that of the mean of as many new trainings, at N and at 2N.

No random numbers are drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from finetune_operator.finetunesweep.learning_curve.curve import (
    FLATTEST,
    STEEPEST,
    Measured,
    errors_by_size,
    means,
    own_variance,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LOWEST, HIGHEST = 0.05, 0.95
"""Quantiles: the bounds of the 90 % interval."""
_MISFITS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Standard deviations of the misfit, as shares of the fall from the highest error to the lowest."""
_EXPONENTS, _FLOORS, _SLOPES, _NOISES = 40, 21, 15, 41
"""How many values of c, a, b and of the noise."""
_REACH = 6.0
"""By so many standard deviations of a is a searched, for each c: a fixed grid is too coarse for exact errors."""
_NEGLIGIBLE = 1e-7
"""Of the largest weight."""
_LEAST = 1e-300
"""A probability that is not 0 as a float."""
_FARTHEST = 8.5
"""Standard deviations, beyond which a normal distribution has nothing."""
_REFINEMENTS, _STEPS = 5, 32
"""Of the range in which a quantile is searched."""


@dataclass(frozen=True)
class Gain:
    """How far the mean error of new trainings would fall with twice the examples."""

    gain: float
    """The median."""
    low: float
    high: float
    probability: float
    """That it is at least as much as is worthwhile."""


@dataclass(frozen=True)
class _Sizes:
    """What was measured, and twice the largest size."""

    shares: Numbers
    """n / N of each size."""
    errors: Numbers
    noise: Numbers
    """Variance of each mean error."""
    new_noise: float
    """Variance of the difference of two new ones."""
    likeness: Numbers
    """Correlation of the misfits of any two sizes, of which the last is twice the largest."""


@dataclass(frozen=True)
class _Gains:
    """Gains that a misfit of one scale leaves possible, in their order."""

    gains: Numbers
    weights: Numbers
    """Cumulated, from 0."""
    deviation: float
    """Of what is measured around each."""


def gain_of_doubling(
    measured: Sequence[Measured], variance: Mapping[int, float], worthwhile: float, seeds: int
) -> Gain:
    """What twice the largest number of examples would bring, as the means of so many trainings of either would show."""
    import numpy as np

    sizes = _sizes(measured, variance, seeds)
    fall = float(sizes.errors.max() - sizes.errors.min())
    parts = [_posterior(sizes, share * fall) for share in _MISFITS]
    top = max(float(part.log_weights.max()) for part in parts)
    found = [gains for part in parts if (gains := _gains(sizes, part, top)) is not None]
    total = sum(float(part.weights[-1]) for part in found)
    return Gain(
        _quantile(found, total, 0.5),
        _quantile(found, total, LOWEST),
        _quantile(found, total, HIGHEST),
        1 - float(_below(found, total, np.array([worthwhile]))[0]),
    )


def _sizes(measured: Sequence[Measured], variance: Mapping[int, float], seeds: int) -> _Sizes:
    import numpy as np

    largest, of_largest = list(errors_by_size(measured).items())[-1]
    # New trainings are as large or larger: where seeds differ more with more data, all sizes together say too little.
    variance = {**variance, largest: max(variance[largest], own_variance(of_largest))}
    sizes, errors, precision = means(measured, variance)
    octaves = np.log2(np.append(sizes, 2 * sizes[-1]))
    # The misfits of sizes that differ by a factor of two have a correlation of 1/e: an Ornstein-Uhlenbeck process.
    likeness = np.exp(-np.abs(octaves[:, None] - octaves[None, :]))
    new = 2 * variance[largest] / seeds
    return _Sizes(sizes / sizes[-1], errors, 1 / precision, new, likeness)


@dataclass(frozen=True)
class _Posterior:
    """Of c (rows) and a (columns), for one scale of the misfit."""

    misfit: float
    """Its variance."""
    whitening: Numbers
    """Turns errors into independent ones of variance 1."""
    floors: Numbers
    log_weights: Numbers
    middle: Numbers
    """The mean of b before b >= 0."""
    deviation: Numbers


def _posterior(sizes: _Sizes, misfit: float) -> _Posterior:
    import numpy as np

    covariance = np.diag(sizes.noise) + misfit**2 * sizes.likeness[:-1, :-1]
    lower = np.linalg.cholesky(covariance)
    whitening = np.linalg.inv(lower)
    errors, level, shapes = whitening @ sizes.errors, whitening.sum(axis=1), _shapes(sizes) @ whitening.T
    floors, width = _floors(sizes, errors, level, shapes)
    left = errors - floors[:, :, None] * level
    information = (shapes**2).sum(axis=1)[:, None]
    middle = (left * shapes[:, None, :]).sum(axis=2) / information
    missed = (left**2).sum(axis=2) - information * middle**2
    deviation = np.broadcast_to(1 / np.sqrt(information), middle.shape)
    # Not 0, so that a curve remains where all fit badly.
    positive = np.maximum(_chance_below(middle / deviation), _LEAST)
    weights = -0.5 * missed + np.log(deviation * positive * width[:, None]) - np.log(np.diag(lower)).sum()
    return _Posterior(misfit**2, whitening, floors, weights, middle, deviation)


def _exponents() -> Numbers:
    import numpy as np

    return np.linspace(FLATTEST, STEEPEST, _EXPONENTS)


def _shapes(sizes: _Sizes) -> Numbers:
    """(n / N)^-c of each c (rows) and size (columns)."""
    shapes: Numbers = sizes.shares ** -_exponents()[:, None]
    return shapes


def _floors(sizes: _Sizes, errors: Numbers, level: Numbers, shapes: Numbers) -> tuple[Numbers, Numbers]:
    """Values of a (columns) for each c (rows), where the errors allow them, and how wide they lie."""
    import numpy as np

    total, first, second = level @ level, shapes @ level, (shapes**2).sum(axis=1)
    determinant = total * second - first**2
    best = (second * (errors @ level) - first * (shapes @ errors)) / determinant
    reach = _REACH * np.sqrt(second / determinant)
    highest = max(float(sizes.errors.max()), 0.0)
    low = np.clip(best - reach, 0.0, highest)
    high = np.clip(best + reach, np.minimum(low + reach / _REACH, highest), highest)
    # Errors that are all 0 leave a no room: then it is 0 for each c.
    width = np.maximum(high - low, _LEAST) if highest > 0 else np.ones_like(low)
    return np.linspace(low, high, _FLOORS, axis=1), width


def _gains(sizes: _Sizes, part: _Posterior, top: float) -> _Gains | None:
    """The gains of each a, b and c that count; None if none does. `top`: the largest weight of any misfit."""
    import numpy as np

    weights = np.exp(part.log_weights - top)
    counts = weights > _NEGLIGIBLE
    if not counts.any():
        return None
    rows, _ = np.nonzero(counts)
    slopes = _above_zero(part.middle[counts], part.deviation[counts])
    # What the errors say of the difference between the misfits at N and at 2N, given the curve.
    across = part.misfit * (sizes.likeness[-2, :-1] - sizes.likeness[-1, :-1])
    share = across @ part.whitening.T @ part.whitening
    constant = share @ sizes.errors - share.sum() * part.floors[counts]
    # At N the curve is a + b: doubling takes b * (1 - 2^-c) away.
    per_slope = 1 - 2.0 ** -_exponents()[rows] - _shapes(sizes)[rows] @ share
    gains = (slopes * per_slope[:, None] + constant[:, None]).ravel()
    order = np.argsort(gains)
    cumulated = np.cumsum(np.broadcast_to(weights[counts][:, None], slopes.shape).ravel()[order])
    unknown = 2 * part.misfit * (1 - float(sizes.likeness[-2, -1])) - float(share @ across)
    deviation = math.sqrt(max(unknown, 0.0) + sizes.new_noise)
    return _Gains(gains[order], np.concatenate([[0.0], cumulated]), deviation)


def _above_zero(middle: Numbers, deviation: Numbers) -> Numbers:
    """Quantiles (columns), each as likely, of the normal distributions (rows) as far as they are above 0."""
    import numpy as np

    below = _chance_below(-middle / deviation)[:, None]
    shares = below + _ranks(_SLOPES) * (1 - below)
    found: Numbers = np.maximum(0.0, middle[:, None] + deviation[:, None] * _normal_quantile(shares))
    return found


def _below(found: Sequence[_Gains], total: float, gains: Numbers) -> Numbers:
    """How likely less than each of these gains is measured."""
    import numpy as np

    noises = _normal_quantile(_ranks(_NOISES))
    at = [np.searchsorted(part.gains, gains[:, None] - part.deviation * noises) for part in found]
    below: Numbers = sum(part.weights[places].mean(axis=1) for part, places in zip(found, at, strict=True)) / total
    return below


def _quantile(found: Sequence[_Gains], total: float, share: float) -> float:
    import numpy as np

    low = min(float(part.gains[0]) - _FARTHEST * part.deviation for part in found)
    high = max(float(part.gains[-1]) + _FARTHEST * part.deviation for part in found)
    for _ in range(_REFINEMENTS):
        gains = np.linspace(low, high, _STEPS + 1)
        above = int(np.clip(np.searchsorted(_below(found, total, gains), share), 1, _STEPS))
        low, high = float(gains[above - 1]), float(gains[above])
    return (low + high) / 2


def _ranks(count: int) -> Numbers:
    import numpy as np

    return (np.arange(count) + 0.5) / count


@functools.cache
def _normal_table() -> tuple[Numbers, Numbers]:
    """The standard normal distribution: values, and how likely a smaller one is."""
    import numpy as np

    values = np.linspace(-_FARTHEST, _FARTHEST, 4001)
    return values, np.array([NormalDist().cdf(value) for value in values])


def _chance_below(values: Numbers) -> Numbers:
    import numpy as np

    return np.interp(values, *_normal_table())


def _normal_quantile(shares: Numbers) -> Numbers:
    import numpy as np

    values, chances = _normal_table()
    return np.interp(shares, chances, values)
