"""The regularized incomplete beta function, and what follows from it."""

from __future__ import annotations

import math

_MOST_TERMS = 10_000


def beta_share(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function, by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if x <= 0 or x >= 1:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    value, c, d = 1.0, 1.0, 0.0
    for term in range(_MOST_TERMS):
        m = term // 2
        if term == 0:
            factor = 1.0
        elif term % 2 == 0:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + factor * d)
        c = 1 + factor / c
        value *= c * d
        if term and abs(c * d - 1) < 1e-14:
            break
    return math.exp(scale) * (value - 1) / a


def f_tail(ratio: float, above: int, below: int) -> float:
    """How likely a ratio of variances at least as large is, by the F distribution with these degrees of freedom."""
    return beta_share(below / (below + above * max(ratio, 0.0)), below / 2, above / 2)
