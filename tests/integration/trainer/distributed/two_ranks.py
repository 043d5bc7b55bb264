"""Gradients of a model that is sharded over two processes of one machine, beside those of one process."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import AutoModelForCausalLM

from finetune_api.finetunejob import Adapter, LoRA
from finetune_trainer.distributed.ranks import Ranks
from finetune_trainer.distributed.sharding import fill, shard
from finetune_trainer.model.adapters import add_lora
from tests.integration.trainer.distributed.tiny_configs import EXPERTS, LLAMA, TIED

RANKS = 2
CONFIGS = {"plain": LLAMA, "tied": TIED, "experts": EXPERTS}


def compare(rank: int, folder: Path) -> None:
    """Write to `differences.json` the largest difference of a weight's gradient, as a share of it, by variant."""
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    found = {}
    for name, lora, recomputed, bfloat16 in itertools.product(CONFIGS, (True, False), (False, True), (False, True)):
        adapter, activations = "LoRA" if lora else "Full", "recomputed" if recomputed else "kept"
        variant = f"{name} {adapter} {activations} {'bf16' if bfloat16 else 'fp32'}"
        found[variant] = _difference(rank, CONFIGS[name], lora=lora, recomputed=recomputed, bfloat16=bfloat16)
    if rank == 0:
        (folder / "differences.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def _difference(rank: int, config: Any, *, lora: bool, recomputed: bool, bfloat16: bool) -> float:
    whole = _model(config, "cpu", lora=lora, bfloat16=bfloat16)
    sharded = _model(config, "meta", lora=lora, bfloat16=bfloat16)
    shard(sharded, Ranks(rank, RANKS, rank, RANKS, "localhost", 0), bfloat16=bfloat16)
    fill(sharded, whole if rank == 0 else None)
    for model in (whole, sharded):
        model.train()
        if recomputed:
            model.gradient_checkpointing_enable()
            if lora:
                model.enable_input_require_grads()
    tokens = [torch.arange(20)[None] + number for number in range(RANKS)]
    sharded(input_ids=tokens[rank], labels=tokens[rank], use_cache=False).loss.backward()
    for part in tokens:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = whole(input_ids=part, labels=part, use_cache=False).loss / RANKS
        loss.backward()
    expected = dict(whole.named_parameters())
    differences = [
        float((weight.grad.full_tensor() - expected[name].grad).norm() / expected[name].grad.norm().clamp(min=1e-12))
        for name, weight in sharded.named_parameters()
        if weight.requires_grad
    ]
    return max(differences)


def _model(config: Any, device: str, *, lora: bool, bfloat16: bool) -> Any:
    torch.manual_seed(1)
    dtype = torch.bfloat16 if bfloat16 and lora else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if not lora:
        return model
    tuned = add_lora(model, Adapter(lora=LoRA(rank=4)))
    if device != "meta":
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return tuned
