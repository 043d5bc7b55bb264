"""The micro-batches of a step on this accelerator: their size, gradient accumulation, and gradient checkpointing.

They change time and memory, not what is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import torch

from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.distributed.batches import BatchSplit, micro_batch_sizes, split_batch
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.model.adapters import add_lora, trained_shapes
from finetune_trainer.model.kernels.packed_attention import computes_packed
from finetune_trainer.model.memory import MethodMemory, ModelSize, model_size, plan_micro_batches, plan_of
from finetune_trainer.model.skeleton import weight_shapes

_log = structlog.get_logger()


@dataclass(frozen=True)
class MicroBatches:
    """How the batch of a step is divided, and whether activations are recomputed."""

    split: BatchSplit
    gradient_checkpointing: bool
    """Activations are recomputed in the backward pass instead of being kept."""


def choose_micro_batches(
    run: TrainRun, base: Path, gang: Gang, method: MethodMemory, teacher: Path | None = None
) -> MicroBatches:
    """The same for all processes. `base`: the model's folder; `method`: the method's needs; `teacher`: its folder.

    Raises DiagnosedError as `split_batch` does.
    """
    from transformers import AutoConfig

    batch, processes = run.hyperparameters.batch_size, gang.ranks.world_size
    tokens = method.sequences_per_example * run.hyperparameters.max_length
    config = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)
    masked = run.hyperparameters.packing and not computes_packed(config)
    split = split_batch(batch, processes, tokens, masked=masked)
    if not torch.cuda.is_available():
        return MicroBatches(split, gradient_checkpointing=False)
    model = _size(run, config, teacher)
    if model is None or masked:
        return MicroBatches(split, gradient_checkpointing=True)
    accelerator = min(gang.gather(lambda: torch.cuda.get_device_properties(gang.ranks.local_rank).total_memory))
    plan = plan_of(run.adapter, run.parallelism, split.micro_batch_size, run.hyperparameters.max_length, method)
    chosen = plan_micro_batches(model, plan, micro_batch_sizes(batch, processes, tokens), accelerator)
    size = chosen.micro_batch_size
    _log.info(
        f"{size} of {batch // processes} examples in a micro-batch, activations "
        f"{'recomputed' if chosen.gradient_checkpointing else 'kept'}"
    )
    return MicroBatches(BatchSplit(size, batch // processes // size), chosen.gradient_checkpointing)


def _size(run: TrainRun, config: Any, teacher: Path | None) -> ModelSize | None:
    """The size of a causal language model with a new adapter, by its config; None for other models."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if type(config) not in AutoModelForCausalLM._model_mapping:
        return None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = weight_shapes(model)
    adapter_shapes = {} if run.adapter.type == "Full" else trained_shapes(add_lora(model, run.adapter))
    size = model_size(config.get_text_config(), shapes, adapter_shapes, run.adapter)
    if size is None or teacher is None:
        return size
    with torch.device("meta"):
        taught_by = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(teacher, trust_remote_code=False, local_files_only=True)
        )
    return replace(size, teacher_parameters=sum(weight.numel() for weight in taught_by.parameters()))
