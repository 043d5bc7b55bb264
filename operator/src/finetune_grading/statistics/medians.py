"""The median of values without bounds, such as seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from finetune_grading.statistics.intervals import Estimate

FEWEST = 6
"""The median is outside of all n values in 2/2^n of samples: 6 values are the fewest for 95 %."""


def median(values: Sequence[float]) -> Estimate | None:
    """The median (as the estimate's mean) and its 95 % interval; None of fewer than 6 values, which have no interval.

    From one order statistic to its mirror image, whatever the distribution: the number of values below the median is
    binomial with p = 1/2 (W. R. Thompson, Annals of Mathematical Statistics 7, 1936; W. J. Conover, "Practical
    Nonparametric Statistics", 3.2).
    """
    count = len(values)
    if count < FEWEST:
        return None
    ordered, below, tail = sorted(values), 0, 0.0
    # Logarithms: the binomial coefficients of 100,000 values have 30,000 digits.
    whole = math.lgamma(count + 1) - count * math.log(2)
    for at in range(count // 2):
        tail += math.exp(whole - math.lgamma(at + 1) - math.lgamma(count - at + 1))
        if tail > 0.025:
            break
        below = at
    return Estimate(statistics.median(ordered), low=ordered[below], high=ordered[count - 1 - below])
