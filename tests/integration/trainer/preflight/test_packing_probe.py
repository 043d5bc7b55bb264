"""Whether packed examples stay apart is tried on a small model of each kind; what these kinds do is in their papers."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from finetune_trainer.preflight.packing_probe import why_not_packed

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "pad_token_id": None,
}
BLOOM: dict[str, Any] = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "bos_token_id": None, "pad_token_id": None}


def small(kind: str, **settings: Any) -> Any:
    return CONFIG_MAPPING[kind](**{"vocab_size": 64, **SIZES, **settings})


LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
APART = {
    "llama": small("llama"),
    "qwen3": small("qwen3", head_dim=16),
    "gemma2": small("gemma2", head_dim=16),
    "gpt2": small("gpt2"),
    "mixtral": small("mixtral", num_local_experts=4, num_experts_per_tok=2),
    # By the mask that transformers makes these mix; training makes none (packed_attention.py).
    "afmoe": small("afmoe"),
    "OPT's positions": CONFIG_MAPPING["opt"](
        vocab_size=64, hidden_size=64, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=64
    ),
    "a real size": CONFIG_MAPPING["llama"](),
    "Llama 3.1 405B": CONFIG_MAPPING["llama"](
        vocab_size=128256,
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
    ),
}
MIXED = {
    "ALiBi": CONFIG_MAPPING["bloom"](vocab_size=64, **BLOOM),
    "ALiBi of MPT": CONFIG_MAPPING["mpt"](vocab_size=64, d_model=64, n_heads=4, n_layers=2),
    "ALiBi of Falcon": CONFIG_MAPPING["falcon"](
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, alibi=True
    ),
    "a state": CONFIG_MAPPING["mamba"](vocab_size=64, hidden_size=64, num_hidden_layers=2),
    "linear attention": small("qwen3_5_text", **LINEAR),
}


@pytest.mark.parametrize("config", APART.values(), ids=APART)
def test_packing_is_taken_where_examples_stay_apart(config: Any) -> None:
    assert why_not_packed(config) is None


@pytest.mark.parametrize("config", MIXED.values(), ids=MIXED)
def test_packing_is_refused_where_they_mix_or_can_not_be_computed(config: Any) -> None:
    assert why_not_packed(config)
