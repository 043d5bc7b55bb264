"""What more training data would bring: a curve through the errors at several sizes, with its uncertainty. Pure.

The error with n of N examples is a + b * (n / N)^-c. The posterior of a and c is computed on a grid, each with the
posterior of b >= 0, a truncated normal distribution, by its quantiles; no random numbers are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev
from typing import TYPE_CHECKING

from finetune_grading.statistics.beta import f_tail

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FEWEST_SIZES = 4
LOWEST, HIGHEST = 0.05, 0.95
"""Quantiles: the bounds of the 90 % interval."""
STEEPEST, FLATTEST = 1.5, 0.05
"""Of c."""
_EXPONENTS, _FLOORS, _QUANTILES = 80, 61, 41
_FINE_EXPONENTS = 1000
"""Enough for errors of which seeds differ by a thousandth."""
_REACH = 6.0
"""By so many standard deviations of a is a searched, for each c: a fixed grid is too coarse for exact errors."""
_NEGLIGIBLE = 1e-7
"""Of the largest weight."""
_LEAST = 1e-300
"""A probability that is not 0 as a float."""
_UNLIKELY = 0.05
"""A misfit of less than this probability is not by chance."""
_KNOWN = 1000
"""Degrees of freedom of a variance that is known."""
_SUSPICIOUS = 3.0
"""By so many standard errors may the error grow with the data before the curve is no curve."""


@dataclass(frozen=True)
class Measured:
    """The error of one training, lower is better; `standard_error`: of its measurement, if that is known."""

    examples: int
    error: float
    standard_error: float | None = None


@dataclass(frozen=True)
class Doubled:
    """How far the error would fall with twice the examples."""

    gain: float
    """The median."""
    low: float
    high: float
    probability: float
    """That it is at least as much as is worthwhile."""


def variances(measured: Sequence[Measured]) -> dict[int, float] | None:
    """The variance of an error, by size: as the seeds differ, and no less than its measurement; None: not known."""
    freedom = _freedom(measured)
    # The variance of Student's t distribution: few seeds tell little of how far seeds differ.
    of_seeds = _variance_of_seeds(measured) * freedom / (freedom - 2) if freedom > 2 else None
    return _with_measurement(measured, of_seeds)


def _freedom(measured: Sequence[Measured]) -> int:
    return sum(len(errors) - 1 for errors in errors_by_size(measured).values())


def _variance_of_seeds(measured: Sequence[Measured]) -> float:
    by_size = errors_by_size(measured).values()
    return sum((error - mean(errors)) ** 2 for errors in by_size for error in errors) / _freedom(measured)


def _with_measurement(measured: Sequence[Measured], of_seeds: float | None) -> dict[int, float] | None:
    found = {}
    for size in errors_by_size(measured):
        known = [one.standard_error for one in measured if one.examples == size]
        of_measurement = [error**2 for error in known if error is not None]
        if of_seeds is None and not of_measurement:
            return None
        found[size] = max(of_seeds or 0.0, mean(of_measurement) if of_measurement else 0.0)
    return found


def errors_by_size(measured: Sequence[Measured]) -> dict[int, list[float]]:
    """The errors by the number of examples, the fewest first."""
    found: dict[int, list[float]] = {}
    for one in sorted(measured, key=lambda one: one.examples):
        found.setdefault(one.examples, []).append(one.error)
    return found


def grows(measured: Sequence[Measured], variance: Mapping[int, float]) -> bool:
    """Whether the error is clearly higher with more examples than with fewer: no such curve describes that."""
    by_size = list(errors_by_size(measured).items())
    # Small sizes may differ more than large ones.
    own = {size: stdev(errors) ** 2 if len(errors) > 1 else 0.0 for size, errors in by_size}
    spread = {size: max(variance[size], own[size]) / len(errors) for size, errors in by_size}
    return any(
        mean(more) - mean(fewer) > _SUSPICIOUS * math.sqrt(spread[large] + spread[small])
        for at, (small, fewer) in enumerate(by_size)
        for large, more in by_size[at + 1 :]
    )


def fits(measured: Sequence[Measured]) -> bool:
    """Whether the errors are as near to a curve as chance brings them: the F test of lack of fit.

    Needs `variances`, and more sizes than the three parameters of the curve.
    """
    freedom = _freedom(measured)
    variance = _with_measurement(measured, _variance_of_seeds(measured) if freedom else None)
    assert variance is not None
    sizes, errors, precision = _means(measured, variance)
    return any(
        f_tail(misfit / beyond, beyond, freedom or _KNOWN) >= _UNLIKELY
        for misfit, beyond in _misfits(sizes, errors, precision)
    )


def _misfits(sizes: Numbers, errors: Numbers, precision: Numbers) -> Iterator[tuple[float, int]]:
    """The weighted squares by which the errors miss the nearest curve, and how many sizes it has beyond its parameters.

    Of the nearest curve with a, b >= 0; where the nearest one of all has a negative a or b, also of those without it.
    """
    import numpy as np

    shapes = (sizes / sizes.max()) ** -np.linspace(FLATTEST, STEEPEST, _FINE_EXPONENTS)[:, None]
    total, first, second = precision.sum(), shapes @ precision, shapes**2 @ precision
    level, product = errors @ precision, shapes @ (precision * errors)
    floors = (second * level - first * product) / (total * second - first**2)
    slopes = (product - floors * first) / second
    missed = (errors - floors[:, None] - slopes[:, None] * shapes) ** 2 @ precision
    nearest = missed.argmin()
    possible = (floors >= 0) & (slopes >= 0)
    if possible.any():
        yield float(missed[possible].min()), len(sizes) - 3
    if floors[nearest] < 0:
        without_floor = np.maximum(0.0, product / second)[:, None] * shapes
        yield float(((errors - without_floor) ** 2 @ precision).min()), len(sizes) - 2
    if slopes[nearest] < 0:
        yield float((errors - level / total) ** 2 @ precision), len(sizes) - 1


def doubled(measured: Sequence[Measured], variance: Mapping[int, float], worthwhile: float) -> Doubled:
    """What twice the largest number of examples would bring."""
    import numpy as np

    sizes, errors, precision = _means(measured, variance)
    exponents, shapes = _exponents(), _shapes(sizes)
    floors, width = _floors(errors, shapes, precision)
    weight, middle, deviation = _slopes(errors - floors[:, :, None], shapes, precision)
    weight = weight * width[:, None]
    counts = weight > _NEGLIGIBLE * weight.max()
    # At the largest size the curve is a + b: doubling takes b * (1 - 2^-c) away.
    shares = np.broadcast_to(1 - 2.0 ** -exponents[:, None], weight.shape)[counts]
    gains = _above_zero(middle[counts], deviation[counts]) * shares[:, None]
    weights = np.broadcast_to(weight[counts][:, None], gains.shape)
    order = np.argsort(gains, axis=None)
    sorted_gains, total = gains.ravel()[order], np.cumsum(weights.ravel()[order])
    total /= total[-1]
    at = [float(sorted_gains[np.searchsorted(total, quantile)]) for quantile in (LOWEST, 0.5, HIGHEST)]
    below = float(total[np.searchsorted(sorted_gains, worthwhile) - 1]) if sorted_gains[0] < worthwhile else 0.0
    return Doubled(at[1], at[0], at[2], 1 - below)


def _means(measured: Sequence[Measured], variance: Mapping[int, float]) -> tuple[Numbers, Numbers, Numbers]:
    """The sizes, the mean error of each, and one divided by the variance of that mean."""
    import numpy as np

    by_size = errors_by_size(measured)
    return (
        np.array(list(by_size), dtype=float),
        np.array([mean(found) for found in by_size.values()]),
        np.array([len(found) / max(variance[size], 1e-12) for size, found in by_size.items()]),
    )


def _exponents() -> Numbers:
    import numpy as np

    return np.linspace(FLATTEST, STEEPEST, _EXPONENTS)


def _shapes(sizes: Numbers) -> Numbers:
    """(n / N)^-c of each c (rows) and size (columns)."""
    shapes: Numbers = (sizes / sizes.max()) ** -_exponents()[:, None]
    return shapes


def _floors(errors: Numbers, shapes: Numbers, precision: Numbers) -> tuple[Numbers, Numbers]:
    """Values of a (columns) for each c (rows), where the errors allow them, and how wide they lie."""
    import numpy as np

    total, first, second = precision.sum(), shapes @ precision, shapes**2 @ precision
    determinant = total * second - first**2
    best = (second * (errors @ precision) - first * (shapes @ (precision * errors))) / determinant
    reach = _REACH * np.sqrt(second / determinant)
    highest = max(float(errors.max()), 0.0)
    low = np.clip(best - reach, 0.0, highest)
    high = np.clip(best + reach, np.minimum(low + reach / _REACH, highest), highest)
    # Errors that are all 0 leave a no room: then it is 0 for each c.
    width = high - low if highest > 0 else np.ones_like(low)
    return np.linspace(low, high, _FLOORS, axis=1), width


def _slopes(left: Numbers, shapes: Numbers, precision: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Of each c (rows) and a (columns): the posterior weight, and mean and deviation of b before b >= 0."""
    import numpy as np

    information = (shapes**2 @ precision)[:, None]
    middle = (left * (shapes * precision)[:, None, :]).sum(axis=2) / information
    misfit = (precision * left**2).sum(axis=2) - information * middle**2
    deviation = np.broadcast_to(1 / np.sqrt(information), middle.shape)
    # Not 0, so that a curve remains where all fit badly.
    positive = np.maximum(np.vectorize(NormalDist().cdf)(middle / deviation), _LEAST)
    weight = np.exp(-0.5 * (misfit - misfit.min())) * deviation * positive
    return weight, middle, deviation


def _above_zero(middle: Numbers, deviation: Numbers) -> Numbers:
    """Quantiles (columns), each as likely, of the normal distributions (rows) as far as they are above 0."""
    import numpy as np

    normal = NormalDist()
    below = np.vectorize(normal.cdf)(-middle / deviation)[:, None]
    ranks = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    shares = below + ranks * (1 - below)
    values = np.vectorize(normal.inv_cdf)(np.clip(shares, 1e-12, 1 - 1e-12))
    found: Numbers = np.maximum(0.0, middle[:, None] + deviation[:, None] * values)
    return found
