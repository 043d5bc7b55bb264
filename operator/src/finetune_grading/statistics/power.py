"""What a number of examples can show, and how many it takes."""

from __future__ import annotations

import math
from statistics import NormalDist

from finetune_grading.statistics.intervals import Z_95, Estimate

Z_80 = NormalDist().inv_cdf(0.8)
"""A test that finds what is there four times out of five, as is customary."""


def minimum_detectable_difference(found: Estimate) -> float:
    """The least true difference that a 95 % interval as wide as this one shows not to be 0, four times out of five.

    (z_0.975 + z_0.8) standard errors, of which the interval is 2 z_0.975 wide. So it never is 0: not of finitely many
    examples, also where none differs.
    """
    return (Z_95 + Z_80) / Z_95 * (found.high - found.low) / 2


def examples_to_detect(difference: float, discordance: float) -> int:
    """Examples that show a difference of two models that give different answers to a share of them (`discordance`).

    Right or wrong on the same examples, 80 % power: (z_0.975 + z_0.8)^2 discordance / difference^2.
    """
    return math.ceil((Z_95 + Z_80) ** 2 * discordance / difference**2)


def examples_to_decide(mean: float, low: float, high: float, demanded: float, examples: int) -> int | None:
    """How many more examples would be needed if the mean stayed: until the interval leaves out what is demanded.

    Its ends come nearer as the root of the number of examples. None where the mean is what is demanded: no number of
    examples would tell.
    """
    gap = mean - demanded
    half = mean - low if gap > 0 else high - mean
    if abs(gap) < 1e-9:
        return None
    return max(1, math.ceil(examples * ((half / gap) ** 2 - 1)))
