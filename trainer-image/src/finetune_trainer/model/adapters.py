"""The model as it is trained: with a new or an inherited LoRA adapter, or whole, with some layers frozen.

Preflight adds the adapter on the meta device, before accelerators are requested, and so finds what training would
refuse.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import warnings
from collections import defaultdict
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import BitsAndBytesConfig, set_seed

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Freeze
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.model.loading import Device, LocalModel, load_model
from finetune_trainer.model.target_modules import lora_config, refuse_unknown_targets
from finetune_trainer.process.failures import DiagnosedError, first_line


def load_trainable_model(run: TrainRun, local: LocalModel, device: Device | None = None) -> Any:
    """Load the model: for LoRA with a new adapter or the inherited one, for Full with all its weights in float32.

    `device`: as of `load_model`. Raises DiagnosedError (InvalidSpec) when the model has no such modules or layers, or
    can't be quantized here.
    """
    if run.adapter.type == "Full":
        # Weights that are trained are kept in full precision.
        return load_whole_model(local, torch.float32, run.adapter.freeze, device)
    dtype = torch.bfloat16 if uses_bfloat16() else torch.float32
    quantization = _four_bits(dtype) if run.adapter.type == "QLoRA" else None
    if not trains_new_adapter(run.adapter, local):
        return load_model(local, dtype, trainable_adapter=True, quantization=quantization, device=device)
    model = load_merged_model(local, dtype, quantization, device)
    set_seed(run.hyperparameters.seed)
    return add_lora(model, run.adapter)


def load_whole_model(local: LocalModel, dtype: torch.dtype, frozen: Freeze | None, device: Device | None = None) -> Any:
    """The model for full fine-tuning: all its weights are trained, but for those to freeze. Raises DiagnosedError."""
    model = load_merged_model(local, dtype, device=device)
    if local.adapter is not None:
        model.requires_grad_(True)  # peft has frozen what its adapter was on
    if frozen is not None:
        freeze(model, frozen)
    return model


def uses_bfloat16() -> bool:
    """Whether this machine computes in bfloat16."""
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def keep_master_weights(model: Any) -> None:
    """Cast what is trained to float32: TRL's trainers put adapters of a quantized model into bfloat16.

    In bfloat16 most steps of a small learning rate are rounded away, and AdamW's second moment can't fall.
    """
    for weight in model.parameters():
        if weight.requires_grad and weight.dtype is torch.bfloat16:
            weight.data = weight.data.float()


def trains_new_adapter(adapter: Adapter, local: LocalModel) -> bool:
    """Whether a new adapter is trained: not for Full, nor when the model's own adapter is trained further."""
    return adapter.type != "Full" and (local.adapter is None or adapter.inherited == "Merge")


def load_merged_model(
    local: LocalModel, dtype: torch.dtype, quantization: Any = None, device: Device | None = None
) -> Any:
    """The model with its own adapter, if it has one, merged into it."""
    model = load_model(local, dtype, quantization=quantization, device=device)
    return model if local.adapter is None else merge_adapter(model)


def merge_adapter(tuned: PeftModel) -> Any:
    """The base model with the adapter merged into it, in the base's precision: added in float32, and rounded once."""
    for module in tuned.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        weights = list(module.get_base_layer().parameters())
        dtypes = [weight.dtype for weight in weights]
        for weight in weights:
            weight.data = weight.data.float()
        module.merge()
        for weight, dtype in zip(weights, dtypes, strict=True):
            weight.data = weight.data.to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        return tuned.merge_and_unload()


def load_frozen_model(local: LocalModel) -> Any:
    """A model to compare with, straight on the accelerator if there is one, and then in half precision if it can."""
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    return load_merged_model(local, torch.bfloat16 if uses_bfloat16() else torch.float32, device=device)


def weights_digest(model: Any) -> list[tuple[float, float]]:
    """The sum and the norm of each trainable weight in float64, precise enough to detect any change of it."""
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    sums = [
        (torch.sum(one, dtype=torch.float64), torch.linalg.vector_norm(one, dtype=torch.float64)) for one in trained
    ]
    return [(float(total), float(norm)) for total, norm in sums]


def check_weights_changed(
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


def add_lora(model: Any, adapter: Adapter) -> Any:
    """The model with a new LoRA adapter, of Hu et al. (2021): W x becomes W x + alpha / rank * B A dropout(x).

    Of W (out, in), A is (rank, in), random, and B is (out, rank), zero: at first the model computes what it did before.
    Raises DiagnosedError (InvalidSpec) when the model can't have this adapter.
    """
    settings, where = adapter.low_rank, f"adapter.{adapter.member}"
    refuse_unknown_targets(model, settings.target_modules, where)
    on_meta = next(model.parameters()).is_meta
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")  # of experts
            tuned = get_peft_model(model, lora_config(model, adapter), low_cpu_mem_usage=on_meta)
    except ValueError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"{where}.targetModules: {first_line(error)}") from error
    refuse_shared_weights(tuned, Reason.INVALID_SPEC, f"{where}.targetModules")
    return tuned


def trained_shapes(tuned: PeftModel) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that are trained, by peft's names for them."""
    return {name: tuple(weight.shape) for name, weight in tuned.named_parameters() if weight.requires_grad}


def adapts_output_layer(tuned: PeftModel) -> bool:
    """Whether an adapter is on the layer whose outputs are the tokens' logits."""
    return isinstance(tuned.get_base_model().get_output_embeddings(), BaseTunerLayer | AuxiliaryTrainingWrapper)


def refuse_shared_weights(tuned: PeftModel, reason: Reason, where: str) -> None:
    """Raises DiagnosedError: an adapter upon a weight that two modules share can't be merged into it.

    The model that was evaluated, with the adapter on one of the two, is then not the one that is served.
    """
    base = tuned.get_base_model()
    names = {id(module): name for name, module in base.named_modules()}
    owners: dict[int, set[str]] = defaultdict(set)
    for parent in base.modules():  # a module that layers share has one owner: what adapts it, does so everywhere
        for child_name, child in parent.named_children():
            for parameter in child.parameters(recurse=False):
                owners[id(parameter)].add(plain_name(f"{names[id(parent)]}.{child_name}".lstrip(".")))
    for name, module in base.named_modules():
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        original = module.base_layer if isinstance(module, BaseTunerLayer) else module.original_module
        for parameter in original.parameters(recurse=False):
            others = sorted(owners[id(parameter)] - {plain_name(name)})
            if others:
                raise DiagnosedError(
                    reason,
                    f"{where}: {plain_name(name)} shares its weight with {', '.join(others[:3])}, so an adapter on it "
                    "can't be merged: what is served would not be what was evaluated. Leave it out, or train with "
                    "adapter.type Full.",
                )


def freeze(model: Any, frozen: Freeze) -> None:
    """Freeze the embeddings or the first layers. Raises DiagnosedError (InvalidSpec) when there are not as many
    layers."""
    if frozen.embeddings:
        model.get_input_embeddings().requires_grad_(False)
    kinds = frozenset(model._no_split_modules or ())
    layers = [module for module in model.get_decoder().modules() if type(module).__name__ in kinds]
    if frozen.layers > len(layers):
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"adapter.full.freeze.layers is {frozen.layers}, and the model has {len(layers)} layers. Use fewer.",
        )
    for layer in itertools.islice(layers, frozen.layers):
        layer.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "adapter.full.freeze leaves nothing to train. Freeze fewer layers, or not the embeddings.",
        )


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


def plain_name(name: str) -> str:
    """A module's name without peft's wrappers."""
    return re.sub(r"\.(base_layer|original_module)(?=\.|$)", "", name)
