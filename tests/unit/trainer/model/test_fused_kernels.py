"""What Liger's kernels replace in a model. On a CPU it can be patched; only its kernels need a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen3MoeConfig
from transformers.models.llama import modeling_llama
from transformers.models.mixtral import modeling_mixtral
from transformers.models.qwen3_moe import modeling_qwen3_moe

from finetune_api.finetunejob import Adapter, LoRA
from finetune_trainer.model.adapters import add_lora
from finetune_trainer.model.kernels.fused_kernels import fuse_kernels

pytest.importorskip("liger_kernel")

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
MIXTURES = [
    Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    MixtralConfig(**SIZES, num_local_experts=4),
]


@pytest.fixture(autouse=True)
def _patched_for_one_test() -> Iterator[None]:
    """Liger also replaces the functions and classes of an architecture's module."""
    before = {module: dict(vars(module)) for module in (modeling_llama, modeling_mixtral, modeling_qwen3_moe)}
    yield
    for module, content in before.items():
        vars(module).update(content)


def layer_of(config: Any, *, fused: bool = True) -> Any:
    """The first layer of a model with LoRA on all linear layers."""
    torch.manual_seed(0)
    tuned = add_lora(AutoModelForCausalLM.from_config(config), Adapter(lora=LoRA(rank=4)))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    if fused:
        fuse_kernels(tuned)
    return tuned.get_base_model().model.layers[0]


@pytest.mark.parametrize("config", MIXTURES, ids=lambda config: config.model_type)
def test_experts_with_an_adapter_compute_as_before(config: Any) -> None:
    inputs = torch.randn(8, 32), torch.arange(16).reshape(8, 2) % 4, torch.full((8, 2), 0.5)
    expected = layer_of(config, fused=False).mlp.experts(*inputs)
    torch.testing.assert_close(layer_of(config).mlp.experts(*inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("config", "fused"),
    [(LlamaConfig(**SIZES), True), (LlamaConfig(**SIZES, hidden_act="gelu"), False), (MIXTURES[0], False)],
    ids=["SiLU", "GELU", "experts"],
)
def test_an_mlp_is_fused_where_it_is_gated_with_silu_as_ligers_is(config: Any, fused: bool) -> None:
    layer = layer_of(config)
    assert ("Liger" in layer.mlp.forward.__func__.__qualname__) is fused
    assert "Liger" in layer.input_layernorm.forward.__func__.__qualname__
