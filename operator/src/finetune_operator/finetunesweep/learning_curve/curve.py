"""The errors at several sizes of a dataset: how much they vary, and whether they follow a learning curve. Pure.

The curve: the error with n of N examples is a + b * (n / N)^-c, with a, b >= 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

from finetune_grading.statistics.beta import f_tail

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FEWEST_SIZES = 4
LEAST_SPAN = 3
"""The largest size, divided by the smallest. Closer together, a slope of mere noise is called worth it now and then."""
STEEPEST, FLATTEST = 1.5, 0.05
"""Of c."""
_FINE_EXPONENTS = 1000
"""Enough for errors of which seeds differ by a thousandth."""
_NO_VARIANCE = 1e-12
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


def own_variance(errors: Sequence[float]) -> float:
    """How much the seeds of one size differ; 0: not known."""
    return stdev(errors) ** 2 if len(errors) > 1 else 0.0


def error_increases(measured: Sequence[Measured], variance: Mapping[int, float]) -> bool:
    """Whether the error is clearly higher with more examples than with fewer: no such curve describes that."""
    by_size = list(errors_by_size(measured).items())
    # Small sizes may differ more than large ones.
    spread = {size: max(variance[size], own_variance(errors)) / len(errors) for size, errors in by_size}
    return any(
        mean(more) - mean(fewer) > _SUSPICIOUS * math.sqrt(spread[large] + spread[small])
        for at, (small, fewer) in enumerate(by_size)
        for large, more in by_size[at + 1 :]
    )


def fits_curve(measured: Sequence[Measured]) -> bool:
    """Whether the errors are as near to a curve as chance brings them: the F test of lack of fit.

    Needs `variances`, and more sizes than the three parameters of the curve.
    """
    freedom = _freedom(measured)
    variance = _with_measurement(measured, _variance_of_seeds(measured) if freedom else None)
    assert variance is not None
    sizes, errors, precision = means(measured, variance)
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


def means(measured: Sequence[Measured], variance: Mapping[int, float]) -> tuple[Numbers, Numbers, Numbers]:
    """The sizes, the mean error of each, and one divided by the variance of that mean."""
    import numpy as np

    by_size = errors_by_size(measured)
    return (
        np.array(list(by_size), dtype=float),
        np.array([mean(found) for found in by_size.values()]),
        np.array([len(found) / max(variance[size], _NO_VARIANCE) for size, found in by_size.items()]),
    )
