"""Attention over packed rows: each example attends to itself alone, and no mask over all pairs of tokens is made.

A transformers attention function (https://huggingface.co/docs/transformers/attention_interface) for the batches of
TRL's padding-free collator, which tell where each example begins (`cu_seq_lens_q`). On GPUs it is the flash kernel of
`torch.nn.attention.varlen`; elsewhere PyTorch's SDPA, one example after the other. Keys and values are not repeated for
grouped queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "finetune_packed"
"""Without a mask function of this name, transformers makes no mask."""
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD_DIMENSIONS = range(8, 257, 8)
NOT_COMPUTED = ("softcap", "s_aux", "position_bias")
"""What some models add to the scores: gemma2's cap, gpt-oss's sinks, relative positions."""


@contextmanager
def attention_over_packed_rows(model: Any) -> Iterator[None]:
    """Within it a model takes packed batches only. One whose attention this can't compute keeps its own."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not computes_packed(base.config):
        yield
        return
    AttentionInterface.register(NAME, packed_attention)
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def computes_packed(config: Any) -> bool:
    """Whether `packed_attention` computes what the architecture of a config computes."""
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    kind = AutoModelForCausalLM._model_mapping.get(type(text), None)
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    dropout = getattr(text, "attention_dropout", 0) or getattr(text, "attn_pdrop", 0)
    return bool(kind is not None and kind._supports_sdpa and kind._can_set_attn_implementation()) and not (
        capped or dropout
    )


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Of queries (1, heads, tokens, dimensions), keys and values: (1, tokens, heads, dimensions).

    `cu_seq_lens_q`: int32, where each example begins, and the number of all tokens. `sliding_window`: how many tokens
    each attends to, itself among them. Raises NotImplementedError for what it does not compute.
    """
    unknown = [name for name in NOT_COMPUTED if settings.get(name) is not None]
    if dropout or unknown or attention_mask is not None:
        raise NotImplementedError(f"Attention over packed rows with {unknown or 'dropout or a mask'}.")
    if query.is_cuda and query.dtype in FLASH_DTYPES and query.shape[-1] in FLASH_HEAD_DIMENSIONS:
        queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        output = varlen_attn(
            queries,
            keys,
            values,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    examples = zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    outputs = [_attend(*example, scaling, sliding_window) for example in examples]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, sliding_window: int | None
) -> torch.Tensor:
    """Of one example."""
    tokens, mask = query.shape[2], None
    if sliding_window is not None and sliding_window < tokens:
        position = torch.arange(tokens, device=query.device)
        distance = position[:, None] - position
        mask = (distance >= 0) & (distance < sliding_window)
    return scaled_dot_product_attention(
        query, key, value, mask, scale=scaling, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
