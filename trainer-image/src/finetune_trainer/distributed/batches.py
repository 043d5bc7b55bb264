"""How the batch of an optimizer step is divided over processes and gradient accumulation steps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

MOST_TOKENS = 16_384
"""In a micro-batch of several examples: it bounds the activations of a forward pass."""
MOST_MASKED_TOKENS = 2048
"""The same, for packed rows whose attention computes all pairs of their tokens and masks some of them."""


@dataclass(frozen=True)
class BatchSplit:
    """In every process: `accumulation_steps` micro-batches of `micro_batch_size` examples each."""

    micro_batch_size: int
    accumulation_steps: int


def split_batch(batch_size: int, processes: int, tokens: int, *, masked: bool = False) -> BatchSplit:
    """The split with exactly `batch_size` examples a step, in as few micro-batches as MOST_TOKENS allows.

    `tokens`: the most tokens of an example. `masked`: packed rows whose attention needs a mask. Raises DiagnosedError
    (InvalidSpec) when the batch can't be divided over the processes.
    """
    sizes = micro_batch_sizes(batch_size, processes, tokens, masked=masked)
    return BatchSplit(micro_batch_size=sizes[-1], accumulation_steps=batch_size // processes // sizes[-1])


def micro_batch_sizes(batch_size: int, processes: int, tokens: int, *, masked: bool = False) -> list[int]:
    """The possible micro-batch sizes of one process, ascending. Raises as `split_batch` does."""
    share, rest = divmod(batch_size, processes)
    if rest:
        nearest = max(1, share) * processes
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"hyperparameters.batchSize {batch_size} can't be divided over {processes} processes "
            f"(parallelism.nodes x processesPerNode). Use {nearest} or {nearest + processes}.",
        )
    most = MOST_MASKED_TOKENS if masked else MOST_TOKENS
    return [size for size in range(1, share + 1) if share % size == 0 and (size == 1 or size * tokens <= most)]


def examples_in_step(examples: int, batch_size: int, step: int) -> int:
    """The number of examples of a step (counted from 0): the last step of an epoch has those that are left."""
    done = step % math.ceil(examples / batch_size) * batch_size
    return min(batch_size, examples - done)
