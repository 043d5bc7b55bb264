"""Weights, gradients and optimizer state sharded over the processes: FSDP2.

A model is built on the meta device, sharded, and then given its weights, which the first process alone holds whole:
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.distributed.ranks import Ranks


def shard(model: Any, ranks: Ranks, *, bfloat16: bool) -> Any:
    """Shard a model, with its adapter if it has one, over all processes: layer by layer, the embeddings, and the rest.

    The rest is the output layer with the last norm; where it shares the embeddings' weight, that too. It stays gathered
    from a forward pass to its backward pass, which begins with it.

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
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    if not {*embeddings.parameters()} & {*head.parameters()}:
        fully_shard(embeddings, **settings)
    fully_shard(model, **settings)
    base._is_distributed_loading_by_transformers = True
    return model


def fill(model: Any, whole: Any | None) -> None:
    """Give a sharded model on the meta device the weights of `whole`, the same model on the first process; else None.

    One weight at a time: no other process, and no accelerator, ever holds more than one that is whole.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    model.to_empty(device=device)
    weights, buffers = ({}, {}) if whole is None else (dict(whole.named_parameters()), dict(whole.named_buffers()))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            there = torch.empty(weight.shape, dtype=weight.dtype, device=device) if whole is None else weights[name]
            shards = distribute_tensor(there.detach().to(device), weight.device_mesh, weight.placements)
            weight.to_local().copy_(shards.to_local())
        for name, buffer in model.named_buffers():
            if whole is not None:
                buffer.copy_(buffers[name])
            torch.distributed.broadcast(buffer, src=0)


class ReshardAfterEvaluation(TrainerCallback):
    """Reshards the output layer, which stays unsharded from a forward pass to its backward pass.

    An evaluation has no backward pass: a checkpoint right after it would find weights that the optimizer does not know.
    """

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        kwargs["model"].reshard()
