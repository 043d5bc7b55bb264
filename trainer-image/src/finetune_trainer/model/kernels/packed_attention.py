"""Attention over packed rows: each example attends only to itself, without a mask over all pairs of tokens.

A transformers attention function (https://huggingface.co/docs/transformers/attention_interface) for the batches of
TRL's padding-free collator, which say where each example begins (`cu_seq_lens_q`). It calls the flash kernel of
`torch.nn.attention.varlen` where that can run: on NVIDIA GPUs since Ampere, in half precision, for head dimensions that
are multiples of 8 up to 256. Elsewhere it calls SDPA for one example after the other. Keys and values are not repeated
for grouped queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

NAME = "finetune_packed"
"""Without a mask function of this name, transformers makes no mask."""
FLASH_DTYPES = (torch.bfloat16, torch.float16)
FLASH_HEAD_DIMENSIONS = range(8, 257, 8)
FLASH_CAPABILITY = (8, 0)
"""Of the GPU: Ampere."""
NOT_COMPUTED = ("softcap", "s_aux", "position_bias")
"""What some models add to the scores: gemma2's cap, gpt-oss's sinks, relative positions."""


@contextmanager
def attention_over_packed_rows(model: Any) -> Iterator[None]:
    """Inside this context a model takes packed batches only. A model whose attention differs keeps its own."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not computes_packed(base.config):
        yield
        return
    AttentionInterface.register(NAME, packed_attention)
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    if base.config._attn_implementation != NAME:
        raise RuntimeError(f"{type(base).__name__} keeps its attention {before}.")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def computes_packed(config: Any) -> bool:
    """Whether `packed_attention` computes the attention of a config's architecture.

    An architecture that supports flash kernels passes everything but the mask to its attention function: no bias is
    added to the scores, and a sliding window is an argument.
    """
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    kind = AutoModelForCausalLM._model_mapping.get(type(text), None)
    if kind is None or not (kind._supports_sdpa and kind._supports_flash_attn and kind._can_set_attn_implementation()):
        return False
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    dropout = getattr(text, "attention_dropout", 0) or getattr(text, "attn_pdrop", 0)
    return not (capped or dropout)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    position_ids: torch.Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of a packed row; returns (1, tokens, heads, dimensions), and no weights.

    `query`: (1, heads, tokens, dimensions). `key`, `value`: the same, with as many or fewer heads (grouped queries).
    `cu_seq_lens_q`: int32, shape (examples + 1,), cumulative lengths of the examples; derived from `position_ids` where
    a model passes only those. `sliding_window`: the number of tokens that a token attends to, including itself.

    Raises NotImplementedError for what it does not compute.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        if position_ids is None:
            raise NotImplementedError("Attention over packed rows needs cu_seq_lens_q or position_ids.")
        (cu_seq_lens_q, _), (max_length_q, _) = prepare_fa_kwargs_from_position_ids(position_ids)
    unknown = [name for name in NOT_COMPUTED if settings.get(name) is not None]
    causal = getattr(module, "is_causal", True) if settings.get("is_causal") is None else settings["is_causal"]
    if dropout or unknown or attention_mask is not None or not causal or len(query) > 1:
        what = ", ".join(unknown) or "dropout, a mask, later tokens, or several rows"
        raise NotImplementedError(f"Attention over packed rows does not compute {what}.")
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # rotary embeddings of float32 weights make float32 of queries and keys
        query, key, value = (part.to(torch.get_autocast_dtype(kind)) for part in (query, key, value))
    if _in_flash(query, value):
        tokens = [part[0].transpose(0, 1) for part in (query, key, value)]
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        output = varlen_attn(
            *tokens,
            cu_seq_lens_q,
            cu_seq_lens_q,
            int(max_length_q),
            int(max_length_q),
            scale=scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    queries, keys, values = (part.split(lengths, dim=2) for part in (query, key, value))
    outputs = [_attend(*example, scaling, sliding_window) for example in zip(queries, keys, values, strict=True)]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _in_flash(query: torch.Tensor, value: torch.Tensor) -> bool:
    dimensions = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in FLASH_DTYPES
        and dimensions in FLASH_HEAD_DIMENSIONS
        and value.shape[-1] == dimensions
        and torch.cuda.get_device_capability(query.device) >= FLASH_CAPABILITY
    )


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, sliding_window: int | None
) -> torch.Tensor:
    """SDPA over one example: (1, heads, tokens, dimensions), as are the query, key and value."""
    tokens, mask = query.shape[2], None
    if sliding_window is not None and sliding_window < tokens:
        position = torch.arange(tokens, device=query.device)
        distance = position[:, None] - position
        mask = (distance >= 0) & (distance < sliding_window)
    return scaled_dot_product_attention(
        query, key, value, mask, scale=scaling, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
