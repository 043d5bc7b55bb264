"""Norms, gated MLPs and rotary embeddings as one Triton kernel each: Hsu et al., "Liger Kernel" (2024).

They compute the same results with less memory traffic. For the loss TRL has a fused kernel of its own.
"""

from __future__ import annotations

from typing import Any

from transformers.integrations.liger import apply_liger_kernel

FUSED = {"rms_norm": True, "layer_norm": True, "rope": True, "geglu": True}
LOSSES = {"cross_entropy": False, "fused_linear_cross_entropy": False}
SILU = ("silu", "swish")


def fuse_kernels(model: Any) -> None:
    """Patch a causal language model on a GPU. An architecture that Liger does not support keeps its own kernels."""
    apply_liger_kernel(model, {**FUSED, **LOSSES, "swiglu": _has_fusible_mlp(_text_config(model))})


def _text_config(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.config.get_text_config()


def _has_fusible_mlp(config: Any) -> bool:
    """Whether each layer has one MLP, gated with SiLU, which is what Liger's always computes.

    Experts keep transformers' grouped matrix products: Liger's would read stacked weights past the adapter on them.
    """
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    return activation in SILU and not getattr(config, "num_experts_per_tok", None)
