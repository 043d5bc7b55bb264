"""The model as it is trained: in memory, with a new or an inherited adapter, or with some layers frozen."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import BitsAndBytesConfig, set_seed

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter
from finetune_api.run import TrainRun
from finetune_trainer.model.adapters import add_lora, freeze
from finetune_trainer.model.loading import LocalModel, load_model
from finetune_trainer.process.failures import DiagnosedError


def trainable_model(run: TrainRun, local: LocalModel) -> Any:
    """Load the model: for LoRA with a new adapter or the inherited one, for Full with all its weights in float32.

    Raises DiagnosedError (InvalidSpec) when the model has no such modules or layers, or can't be quantized here.
    """
    if run.adapter.type == "Full":
        model = whole_model(local, torch.float32)  # weights that are trained are kept in full precision
        if run.adapter.freeze is not None:
            freeze(model, run.adapter.freeze)
        return model
    dtype = torch.bfloat16 if uses_bfloat16() else torch.float32
    quantization = _four_bits(dtype) if run.adapter.type == "QLoRA" else None
    if not trains_new_adapter(run.adapter, local):
        return load_model(local, dtype, trainable_adapter=True, quantization=quantization)
    model = whole_model(local, dtype, quantization)
    set_seed(run.hyperparameters.seed)
    return add_lora(model, run.adapter)


def uses_bfloat16() -> bool:
    """Whether this machine computes in bfloat16."""
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def trains_new_adapter(adapter: Adapter, local: LocalModel) -> bool:
    """Whether a new adapter is trained: not for Full, nor when the model's own adapter is trained further."""
    return adapter.type != "Full" and (local.adapter is None or adapter.inherited == "Merge")


def whole_model(local: LocalModel, dtype: torch.dtype, quantization: Any = None) -> Any:
    """The model with its own adapter, if it has one, merged into it."""
    model = load_model(local, dtype, quantization=quantization)
    return model if local.adapter is None else model.merge_and_unload()


def weights_digest(model: Any) -> list[tuple[float, float]]:
    """The sum and the norm of each trainable weight in float64, precise enough to detect any change of it."""
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    sums = [
        (torch.sum(one, dtype=torch.float64), torch.linalg.vector_norm(one, dtype=torch.float64)) for one in trained
    ]
    return [(float(total), float(norm)) for total, norm in sums]


def refuse_untrained(
    before: list[tuple[float, float]], after: list[tuple[float, float]], *, new_adapter: bool, highest_rate: float
) -> str | None:
    """Raises DiagnosedError (InvalidSpec) when training changed no weight: the result is the model it began with.

    Returns a warning instead when the learning rate was merely too small for the weights' precision.
    """
    if before != after:
        return None
    message = (
        "Training changed no weight: the result is the model that it began with. The highest learning rate was "
        f"{highest_rate:g}: raise hyperparameters.learningRate, or train for more steps."
    )
    if new_adapter or not highest_rate:
        raise DiagnosedError(Reason.INVALID_SPEC, message)
    return message


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with quantized constants, as in Dettmers et al., "QLoRA" (2023). Raises DiagnosedError (InvalidSpec)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "adapter.type QLoRA needs the package bitsandbytes, which the trainer image for CPUs does not have. "
            "Use LoRA, or a FineTuneClass with the image for CUDA.",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
