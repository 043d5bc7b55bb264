"""Which field to change, and to what, when memory does not suffice. Pure."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.distributed.batches import split_batch

SHORTEST_LENGTH = 128


def more_accelerator_memory(run: TrainRun | None) -> str:
    """What to change when the accelerator's memory was used up."""
    return f"{_smaller_training(run)}, or use a FineTuneClass with larger accelerators."


def more_memory(run: TrainRun | None) -> str:
    """What to change when the container's memory was used up."""
    return f"{_smaller_training(run)}, or raise resources.memory of the FineTuneClass."


def _smaller_training(run: TrainRun | None) -> str:
    if run is None:
        return "Lower hyperparameters.batchSize or hyperparameters.maxLength, set adapter.type to LoRA"
    parameters = run.hyperparameters
    batch, length = parameters.batch_size, parameters.max_length
    processes = run.parallelism.nodes * run.parallelism.processes_per_node

    def tokens(batch: int, length: int) -> int:
        """Of one forward pass, on which the memory of activations depends: smaller batches may be less divided."""
        return split_batch(batch, processes, length).micro_batch_size * length

    now = tokens(batch, length)
    changes = []
    smaller = _halved_until(batch, processes, lambda size: 2 * tokens(size, length) <= now, processes)
    if smaller is not None:
        changes.append(f"hyperparameters.batchSize to {smaller} (now {batch})")
    shorter = _halved_until(length, 1, lambda size: 2 * tokens(batch, size) <= now, SHORTEST_LENGTH)
    if shorter is not None:
        changes.append(f"hyperparameters.maxLength to {shorter} (now {length})")
    if run.adapter.type == "Full":
        changes.append("adapter.type to LoRA (now Full)")
    if not changes:
        return "Take a smaller model"
    return f"Set {', or '.join(changes)}"


def _halved_until(value: int, divisor: int, suffices: Callable[[int], bool], least: int) -> int | None:
    """The first half, quarter, ... of the value, a multiple of the divisor, that suffices."""
    while value > least:
        value = value // 2 // divisor * divisor
        if value >= least and suffices(value):
            return value
    return None
