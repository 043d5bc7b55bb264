"""An adapter that is merged into weights in half precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig

from finetune_api.finetunejob import Adapter, LoRA
from finetune_trainer.model.adapters import add_lora, merge_adapter

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES),
        Qwen3MoeConfig(**SIZES, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24),
    ],
    ids=lambda config: config.model_type,
)
def test_it_is_added_in_float32_and_rounded_once(config: Any) -> None:
    torch.manual_seed(0)
    tuned = add_lora(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), Adapter(lora=LoRA(rank=4)))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    exact = dict(copy.deepcopy(tuned).float().merge_and_unload().named_parameters())
    merged = dict(merge_adapter(tuned).named_parameters())
    assert merged.keys() == exact.keys()
    for name, weight in merged.items():
        assert weight.dtype is torch.bfloat16
        assert torch.equal(weight, exact[name].bfloat16()), name
