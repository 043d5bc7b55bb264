"""How the batch of a step is divided over processes and forward passes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError

MOST_TOKENS_PER_PASS = 16_384  # bounds the activations of one forward pass
MOST_MASKED_TOKENS_PER_PASS = 2048  # of packed rows whose attention computes all pairs of their tokens, and masks some


@dataclass(frozen=True)
class BatchSplit:
    """`per_pass` examples in each of `passes` forward passes, in every process."""

    per_pass: int
    passes: int


def split_batch(batch_size: int, processes: int, tokens: int, *, masked: bool = False) -> BatchSplit:
    """The split that makes exactly `batch_size` examples a step, in as few passes as the `tokens` of each allow.

    `masked`: packed rows whose attention needs a mask. Raises DiagnosedError (InvalidSpec) when the batch can't be
    divided over the processes.
    """
    sizes = pass_sizes(batch_size, processes, tokens, masked=masked)
    return BatchSplit(per_pass=sizes[-1], passes=batch_size // processes // sizes[-1])


def pass_sizes(batch_size: int, processes: int, tokens: int, *, masked: bool = False) -> list[int]:
    """How many examples a forward pass of one process may have, ascending; one always may. Raises as `split_batch`."""
    share, rest = divmod(batch_size, processes)
    if rest:
        nearest = max(1, share) * processes
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"hyperparameters.batchSize {batch_size} can't be divided over {processes} processes "
            f"(parallelism.nodes x processesPerNode). Use {nearest} or {nearest + processes}.",
        )
    most = MOST_MASKED_TOKENS_PER_PASS if masked else MOST_TOKENS_PER_PASS
    return [size for size in range(1, share + 1) if share % size == 0 and (size == 1 or size * tokens <= most)]


def examples_in_step(examples: int, batch_size: int, step: int) -> int:
    """How many examples a step (from 0) has: the last of an epoch has what is left."""
    done = step % math.ceil(examples / batch_size) * batch_size
    return min(batch_size, examples - done)
