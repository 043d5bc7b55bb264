"""Architectures whose weights shard in different ways, with as few as possible."""

from __future__ import annotations

from transformers import Gemma3TextConfig, LlamaConfig, Qwen3MoeConfig

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LLAMA = LlamaConfig(**SIZES)
TIED = Gemma3TextConfig(**SIZES, sliding_window=8)
EXPERTS = Qwen3MoeConfig(**SIZES, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24)
