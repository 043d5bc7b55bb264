"""What `all-linear` adapts, on models without weights: every matrix but routers, however wide the others are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_api.finetunejob import Adapter, LoRA, QLoRA
from finetune_trainer.model.adapter_summary import adapter_summary
from finetune_trainer.model.adapters import add_lora
from finetune_trainer.process.failures import DiagnosedError

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


def mlp(module: str) -> set[str]:
    return {f"{module}.{name}" for name in ("gate_proj", "up_proj", "down_proj")}


LATENT_ATTENTION = {
    f"self_attn.{name}" for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
}
FUSED = {"mlp.experts", "mlp.experts.base_layer"}
DEEPSEEK = {
    "n_routed_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
"""The first layer is dense."""
AFMOE = ATTENTION | {"self_attn.gate_proj"} | FUSED | mlp("mlp.shared_experts")
DELTA_NET = {"linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba", "linear_attn.out_proj"}

DEFAULTS = Adapter(lora=LoRA(rank=4))


def tune(kind: str, settings: dict[str, Any], adapter: Adapter = DEFAULTS) -> Any:
    with torch.device("meta"):
        return add_lora(AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SIZES | settings)), adapter)


def adapted(kind: str, settings: dict[str, Any], adapter: Adapter = DEFAULTS) -> set[str]:
    """The modules of any layer that have an adapter."""
    names = [name for name, _ in tune(kind, settings, adapter).named_parameters() if ".lora_A" in name]
    return {re.sub(r".*?layers\.\d+\.|\.lora_A.*", "", name) for name in names}


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("qwen2_moe", {}, ATTENTION | FUSED | mlp("mlp.shared_expert")),
        ("gpt_oss", {"num_local_experts": EXPERTS}, ATTENTION | FUSED),
        ("qwen3_next", LINEAR_ATTENTION, ATTENTION | DELTA_NET | FUSED | mlp("mlp.shared_expert")),
        ("deepseek_v3", DEEPSEEK, LATENT_ATTENTION | FUSED | mlp("mlp.shared_experts") | mlp("mlp")),
        ("qwen3_moe", {}, ATTENTION | FUSED),
        ("afmoe", {"num_dense_layers": 0, "num_hidden_layers": 4}, AFMOE),  # its router holds a matrix
        (
            "jamba",
            {"attn_layer_period": 1, "attn_layer_offset": 0, "expert_layer_offset": 0},
            ATTENTION | mlp("feed_forward") | {"feed_forward.experts", "feed_forward.experts.base_layer"},
        ),
        ("hunyuan_v1_moe", {}, ATTENTION | FUSED | mlp("mlp.shared_mlp")),
    ],
)
def test_routers_alone_are_left_out_by_their_place_and_not_by_their_width(
    kind: str, settings: dict[str, Any], expected: set[str]
) -> None:
    assert adapted(kind, settings) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["gate_proj", "up_proj", "down_proj"], FUSED | mlp("mlp.shared_expert")),
        (
            ["shared_expert.gate_proj", "shared_expert.down_proj"],
            {f"mlp.shared_expert.{one}_proj" for one in ("gate", "down")},
        ),
        (["q_proj", "shared_expert.up_proj"], {"self_attn.q_proj", "mlp.shared_expert.up_proj"}),
    ],
)
def test_names_that_experts_have_too_are_those_of_all_that_are_called_so(
    targets: list[str], expected: set[str]
) -> None:
    """peft takes them for the experts' alone."""
    adapter = Adapter(lora=LoRA(rank=4, target_modules=targets))
    assert adapted("qwen3_next", LINEAR_ATTENTION, adapter) == expected


def test_in_four_bits_they_are_left_out_and_refused_by_name() -> None:
    """peft adapts weights of this name itself, not their module, and in 4 bits there is no such weight."""
    adapter = Adapter(type="QLoRA", qlora=QLoRA(rank=4))
    assert adapted("qwen3_next", LINEAR_ATTENTION, adapter) == ATTENTION | DELTA_NET | FUSED
    told = str(adapter_summary(tune("qwen3_next", LINEAR_ATTENTION, adapter)))
    assert told.endswith("; not on mlp.shared_expert (down_proj, gate_proj, up_proj).")
    named = Adapter(type="QLoRA", qlora=QLoRA(rank=4, target_modules=["shared_expert.up_proj"]))
    with pytest.raises(DiagnosedError, match=r"adapter\.qlora\.targetModules: 'shared_expert\.up_proj' has the name"):
        tune("qwen3_next", LINEAR_ATTENTION, named)


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        (
            "qwen2_moe",
            {},
            "The adapter is on mlp.experts (down_proj, gate_up_proj), mlp.shared_expert (down_proj, gate_proj, "
            "up_proj), self_attn (k_proj, o_proj, q_proj, v_proj).",
        ),
        (
            "qwen3_moe",
            {},
            "The adapter is on mlp.experts (down_proj, gate_up_proj), self_attn (k_proj, o_proj, q_proj, v_proj).",
        ),
        (
            "llama4_text",
            {"num_local_experts": EXPERTS},
            "The adapter is on feed_forward.experts (down_proj, gate_up_proj), feed_forward.shared_expert (down_proj, "
            "gate_proj, up_proj), self_attn (k_proj, o_proj, q_proj, v_proj).",
        ),
    ],
)
def test_one_line_says_what_is_adapted_and_what_is_not(kind: str, settings: dict[str, Any], line: str) -> None:
    assert str(adapter_summary(tune(kind, settings))) == line
