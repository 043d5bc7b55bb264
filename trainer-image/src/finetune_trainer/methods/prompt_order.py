"""The order in which prompts are answered: the same in every attempt, whatever the size of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch.utils.data import Sampler


@dataclass
class PromptOrder(Sampler[int]):
    """The rows of an epoch as TRL generates for them: a step's prompts, each as often as it is answered, and all of
    them again for each micro-batch, since a step is generated at its first micro-batch.

    TRL leaves out an incomplete last step; here prompts from the start of the epoch fill it up.
    """

    prompts: int
    per_step: int
    completions: int
    micro_batches: int
    seed: int
    epoch: int = 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.prompts, generator=generator).tolist()
        filled_up = cycle(order)
        for _ in range(self._steps):
            answered = [prompt for prompt in islice(filled_up, self.per_step) for _ in range(self.completions)]
            for _ in range(self.micro_batches):
                yield from answered

    def __len__(self) -> int:
        return self._steps * self.per_step * self.completions * self.micro_batches

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for the next epoch. accelerate calls this."""
        self.epoch = epoch

    @property
    def _steps(self) -> int:
        return math.ceil(self.prompts / self.per_step)
