"""Simulated trainings, of which the truth is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from finetune_operator.finetunesweep.learning_curve.curve import Measured

SIZES = (94, 188, 375, 750, 1500)
DRAWS = 60
EXAMPLES = 250
SEED_NOISE = 0.01
"""What the research behind this measured: one point."""


@dataclass(frozen=True)
class Truth:
    """The error is floor + slope * (n / 1500) ** -exponent."""

    floor: float
    slope: float
    exponent: float

    def error(self, examples: int) -> float:
        return self.floor + self.slope * (examples / SIZES[-1]) ** -self.exponent

    @property
    def gain(self) -> float:
        return self.error(SIZES[-1]) - self.error(2 * SIZES[-1])


TRUTHS = {
    "steep": Truth(0.25, 0.11, 0.5),
    "medium": Truth(0.25, 0.06, 0.4),
    "flat": Truth(0.30, 0.005, 0.5),
}


def trained(truth: Truth, chance: random.Random, seeds: int) -> list[Measured]:
    """Each seed differs, and each Evaluation has so many examples."""
    return [graded(truth, size, chance) for size in SIZES for _ in range(seeds)]


def graded(truth: Truth, size: int, chance: random.Random) -> Measured:
    error = min(max(truth.error(size) + chance.gauss(0, SEED_NOISE), 0.0), 1.0)
    wrong = sum(chance.random() < error for _ in range(EXAMPLES)) / EXAMPLES
    return Measured(size, wrong, (wrong * (1 - wrong) / EXAMPLES) ** 0.5)


@dataclass(frozen=True)
class Losses:
    """Trainings of two seeds each, of which nothing but the seeds tells how certain a loss is."""

    error: Callable[[int], float]
    noise: Callable[[int], float]
    """The standard deviation between seeds."""
    sizes: Sequence[int] = SIZES

    def of(self, size: int, chance: random.Random) -> float:
        return self.error(size) + chance.gauss(0, self.noise(size))

    def trained(self, chance: random.Random, seeds: int = 2) -> list[Measured]:
        return [Measured(size, self.of(size, chance)) for size in self.sizes for _ in range(seeds)]

    def measured_gain(self, measured: Sequence[Measured], chance: random.Random, seeds: int = 2) -> float:
        """What new trainings on twice the examples bring, as a person measures it: against those at hand."""
        largest = max(self.sizes)
        before = mean(one.error for one in measured if one.examples == largest)
        return before - mean(self.of(2 * largest, chance) for _ in range(seeds))
