"""What makes a model faster on a GPU without changing what it computes.

- Norms, gated MLPs and rotary embeddings as one Triton kernel each: Hsu et al., "Liger Kernel" (2024). The loss is
  TRL's own kernel already.
- LoRA's inputs stay in bfloat16. Its weights are kept in float32, and autocast computes with copies in bfloat16, so the
  float32 copy that peft makes of each input would be converted back at once.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.integrations.liger import apply_liger_kernel

FUSED = {"rms_norm": True, "layer_norm": True, "rope": True, "swiglu": True, "geglu": True}
LOSSES = {"cross_entropy": False, "fused_linear_cross_entropy": False}


def fuse_kernels(model: Any) -> None:
    """Of a causal language model on a GPU. An architecture that Liger does not know keeps its own kernels."""
    apply_liger_kernel(model, {**FUSED, **LOSSES})
    keep_inputs_in_half(model)


def keep_inputs_in_half(model: Any) -> None:
    """Let the adapters of a model read their inputs as they are. For a training under autocast."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
