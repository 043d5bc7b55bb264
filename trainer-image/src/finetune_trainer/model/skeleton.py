"""A model without its weights: as transformers builds it from the config and from the names and shapes in the files.

It is loaded by transformers itself, from weights on the meta device, so renamed and fused weights are found as they
are in training; it needs no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from finetune_api.conditions import Reason
from finetune_trainer.model.loading import Shapes, as_model_invalid, is_vision_model
from finetune_trainer.model.weight_headers import Tensors
from finetune_trainer.process.failures import DiagnosedError

SHOWN_NAMES = 3
PLAIN = ("F64", "F32", "F16", "BF16")
"""The types, by safetensors' names, whose numbers are what they say."""


def build_skeleton(folder: Path, tensors: Tensors, uri: str) -> tuple[Any, frozenset[str]]:
    """The model whose configs are in `folder`, and the weights in its files that it does not have.

    Raises DiagnosedError (ModelInvalid): its files lack weights, or differ, or are in fewer bits and nothing says how.

    Of a model that is stored in fewer bits, and says so, the weights are not compared: what unpacks them may need an
    accelerator.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.auto_factory import _get_model_class

    auto = AutoModelForImageTextToText if is_vision_model(folder) else AutoModelForCausalLM
    wrong = f"The weights of {uri} are not those of its config.json"
    with as_model_invalid(wrong):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if getattr(config, "quantization_config", None) is not None:
            del config.quantization_config
            with torch.device("meta"):
                return auto.from_config(config, trust_remote_code=False), frozenset()
        make = _get_model_class(config, auto._model_mapping)
        packed = {name: tensor for name, tensor in tensors.items() if tensor.dtype not in PLAIN}
        if packed:
            model, loading = _load(make, config, {name: tensors[name] for name in tensors if name not in packed})
            refuse_packed(model, loading["missing_keys"], packed, uri)
        model, loading = _load(make, config, tensors)
    refuse_missing_weights(loading["missing_keys"], uri)
    return model, frozenset(loading["unexpected_keys"])


def weight_shapes(model: Any) -> Shapes:
    """The shapes of a model's weights, by the names that it has in memory."""
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def _load(make: Any, config: Any, tensors: Tensors) -> tuple[Any, Mapping[str, Any]]:
    loaded: tuple[Any, Mapping[str, Any]] = make.from_pretrained(  # auto classes want a folder
        None,
        config=copy.deepcopy(config),
        state_dict={name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()},
        device_map="meta",
        dtype=torch.float32,
        output_loading_info=True,
    )
    return loaded


def refuse_packed(model: Any, lacking: Collection[str], packed: Tensors, uri: str) -> None:
    """Raises DiagnosedError (ModelInvalid) when numbers of the model come from weights in fewer bits alone.

    They would be cast, without the scales that give them their meaning. `lacking`: what the model lacks without
    `packed`. Masks and counters in old files are not weights.
    """
    weights = {name for name, weight in model.named_parameters() if name in lacking}
    if not weights:
        return
    types = ", ".join(sorted({tensor.dtype for tensor in packed.values()}))
    shown = ", ".join(sorted(packed)[:SHOWN_NAMES])
    more = f" and {len(packed) - SHOWN_NAMES} more" if len(packed) > SHOWN_NAMES else ""
    raise DiagnosedError(
        Reason.MODEL_INVALID,
        f"{uri} stores {shown}{more} as {types}, and its config.json has no quantization_config that says what these "
        "numbers stand for. Upload the config.json that belongs to these weights, or the weights as bfloat16.",
    )


def add_inherited(model: Any, folder: Path, shapes: Shapes, uri: str) -> Any:
    """The skeleton with the adapter whose config is in `folder`. Raises DiagnosedError (ModelInvalid)."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    with as_model_invalid(f"The adapter {uri} does not fit its base model"):
        tuned = get_peft_model(model, PeftConfig.from_pretrained(folder), low_cpu_mem_usage=True)
        wanted = {name: tuple(weight.shape) for name, weight in get_peft_model_state_dict(tuned).items()}
    refuse_missing_weights(wanted.keys() - shapes.keys(), uri)
    other = next((name for name in sorted(wanted) if wanted[name] != shapes[name]), None)
    if other is not None:
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The adapter {uri} does not fit its base model: {other} is {shapes[other]}, expected {wanted[other]}.",
        )
    return tuned


def refuse_missing_weights(missing: Any, uri: str) -> None:
    """Raises DiagnosedError (ModelInvalid) when there are any."""
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        raise DiagnosedError(
            Reason.MODEL_INVALID,
            f"The files of {uri} lack weights that the model has: {', '.join(names[:SHOWN_NAMES])}{more}. Upload the "
            "whole model.",
        )
