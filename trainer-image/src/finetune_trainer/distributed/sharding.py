"""Weights, gradients and optimizer state sharded over the processes: FSDP2.

https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.distributed.ranks import Ranks


def shard(model: Any, ranks: Ranks, *, bfloat16: bool) -> Any:
    """Shard a model, with its adapter if it has one, over all processes: layer by layer, then the remaining weights.

    Each weight becomes a DTensor of the same shape, split along its first dimension. transformers' Trainer then leaves
    placement and gradients to the model, as for one that was sharded when loaded. `bfloat16`: compute in bfloat16 and
    reduce gradients in float32; the sharded weights keep their type.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    mesh = init_device_mesh("cuda" if on_gpu else "cpu", (ranks.world_size,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bfloat16 else None
    settings: dict[str, Any] = {"mesh": mesh, "mp_policy": policy or MixedPrecisionPolicy()}
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = frozenset(base._no_split_modules or ())
    for module in base.modules():
        if type(module).__name__ in layers:
            fully_shard(module, **settings)
    fully_shard(model, **settings)
    base._is_distributed_loading_by_transformers = True
    return model


class ReshardAfterEvaluation(TrainerCallback):
    """Reshards embeddings and head, which stay unsharded from a forward pass to its backward pass.

    An evaluation has no backward pass: a checkpoint right after it would find weights that the optimizer does not know.
    """

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        kwargs["model"].reshard()
