"""Norms, gated MLPs and rotary embeddings as one Triton kernel each: Hsu et al., "Liger Kernel" (2024).

They compute the same results with less memory traffic. For the loss TRL has a fused kernel of its own.
"""

from __future__ import annotations

from typing import Any

from transformers.integrations.liger import apply_liger_kernel

FUSED = {"rms_norm": True, "layer_norm": True, "rope": True, "swiglu": True, "geglu": True}
LOSSES = {"cross_entropy": False, "fused_linear_cross_entropy": False}


def fuse_kernels(model: Any) -> None:
    """Patch a causal language model on a GPU. An architecture that Liger does not support keeps its own kernels."""
    apply_liger_kernel(model, {**FUSED, **LOSSES})
