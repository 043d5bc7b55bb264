"""What `all-linear` adapts, on models without weights: every matrix but routers, however wide the others are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_api.finetunejob import Adapter, LoRA
from finetune_trainer.model.adapters import add_lora

EXPERTS = 32
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": EXPERTS // 2,
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": EXPERTS,
    "shared_expert_intermediate_size": EXPERTS,
}
"""The keys of all heads, the values and a shared expert are as wide as there are experts."""
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
ATTENTION = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}
SHARED = {f"mlp.shared_expert.{name}" for name in ("gate_proj", "up_proj", "down_proj")}
DENSE = {f"feed_forward.{name}" for name in ("gate_proj", "up_proj", "down_proj")}
FUSED = {"mlp.experts", "mlp.experts.base_layer"}
DELTA_NET = {"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba", "linear_attn.out_proj"}


def adapted(kind: str, settings: dict[str, Any]) -> set[str]:
    """The modules of any layer that have an adapter."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SIZES | settings))
    names = [name for name, _ in add_lora(model, Adapter(lora=LoRA(rank=4))).named_parameters() if ".lora_A" in name]
    return {re.sub(r".*?layers\.\d+\.|\.lora_A.*", "", name) for name in names}


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("qwen2_moe", {}, ATTENTION | SHARED),
        ("qwen3_next", LINEAR_ATTENTION, ATTENTION | DELTA_NET | FUSED),
        ("qwen3_moe", {}, ATTENTION | FUSED),
        ("afmoe", {"num_dense_layers": 0, "num_hidden_layers": 4}, ATTENTION | FUSED),  # its router holds a matrix
        ("jamba", {"attn_layer_period": 1, "attn_layer_offset": 0, "expert_layer_offset": 0}, ATTENTION | DENSE),
        ("hunyuan_v1_moe", {}, ATTENTION | FUSED),
    ],
)
def test_routers_alone_are_left_out_by_their_place_and_not_by_their_width(
    kind: str, settings: dict[str, Any], expected: set[str]
) -> None:
    assert adapted(kind, settings) == expected
