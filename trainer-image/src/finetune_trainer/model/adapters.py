"""The model as it is trained: with a new or an inherited LoRA adapter, or whole, with some layers frozen.

Preflight adds the adapter on the meta device, before accelerators are requested, and so finds what training would
refuse.
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import re
import warnings
from collections import defaultdict
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer, _check_lora_target_modules_mamba
from peft.utils.other import AuxiliaryTrainingWrapper
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from transformers import BitsAndBytesConfig, set_seed
from transformers.pytorch_utils import Conv1D

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter, Freeze
from finetune_api.run import TrainRun
from finetune_trainer.model.loading import LocalModel, load_model
from finetune_trainer.process.failures import DiagnosedError, first_line

ALL_LINEAR = ["all-linear"]
SHOWN_NAMES = 20
ADAPTABLE = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
EXPERTS, STACKED = "experts", 3
"""Where a model has the weights of its experts, and the dimensions of one that is those of all of a layer."""
ROUTER = "router"
GATES = ("gate", "shared_expert_gate")
"""Routers too, but only next to `experts`: elsewhere a gate is one of the layer's own matrices."""


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


def add_lora(model: Any, adapter: Adapter) -> Any:
    """The model with a new LoRA adapter. Raises DiagnosedError (InvalidSpec) when the model can't have this one."""
    settings, where = adapter.low_rank, f"adapter.{adapter.member}"
    _refuse_unknown_targets(model, settings.target_modules, where)
    on_meta = next(model.parameters()).is_meta
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")  # of experts
            tuned = get_peft_model(model, lora_config(model, adapter), low_cpu_mem_usage=on_meta)
    except ValueError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"{where}.targetModules: {first_line(error)}") from error
    refuse_shared_weights(tuned, Reason.INVALID_SPEC, f"{where}.targetModules")
    return tuned


def lora_config(model: Any, adapter: Adapter) -> LoraConfig:
    """peft's config of a new LoRA.

    Raises DiagnosedError (InvalidSpec): dropout where peft has none, or a matrix in 4 bits that it can't adapt.
    """
    settings, where = adapter.low_rank, f"adapter.{adapter.member}"
    everything = settings.target_modules == ALL_LINEAR
    fused, gates = _fused_names(model), routers(model)
    targets, stacked = settings.target_modules, _targeted(model, settings.target_modules)
    if everything and fused:  # peft's own all-linear of such a model has its router too
        targets = sorted(_linear_names(model, but=gates) | _expert_names(model))
    if settings.dropout and (stacked or fused.intersection(_last(target) for target in targets)):
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"{where}.dropout is {settings.dropout}, and the targets are weights of experts, which can't have any. "
            "Leave it out or set it to 0, or name other targetModules.",
        )
    excluded = _excluded(model, gates) if everything else None
    alike = _named_like_experts(model, targets, excluded)
    only_there = {target for target in targets if "." in target and any(_is_named(name, target) for name in alike)}
    if only_there and adapter.type == "QLoRA":
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"{where}.targetModules: {min(only_there)!r} has the name that the experts' weights have, and peft can't "
            "adapt it in 4 bits. Leave it out, or train with adapter.type LoRA.",
        )
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=ALL_LINEAR[0]
        if targets == ALL_LINEAR
        else [one for one in targets if one not in only_there and _names_a_module(model, fused, one)],
        target_parameters=stacked or (None if adapter.type == "QLoRA" else _weights_of(model, alike)),
        exclude_modules=excluded,
        task_type="CAUSAL_LM",
    )


def trained_shapes(tuned: PeftModel) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that are trained."""
    return {name: tuple(weight.shape) for name, weight in tuned.named_parameters() if weight.requires_grad}


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


def _refuse_unknown_targets(model: Any, targets: list[str], where: str) -> None:
    """peft accepts several names when one of them exists, and its error for a wrong type prints the whole module."""
    if targets == ALL_LINEAR:
        return
    fused = _fused_names(model)
    known = _linear_names(model) | fused | {_last(name) for name in _stacked(model)}
    there = f"It has: {', '.join(sorted(known)[:SHOWN_NAMES])}."
    for target in targets:
        if _last(target) in fused or _targeted(model, [target]):
            continue
        found = [item for name, item in model.named_modules() if _is_named(name, target)]
        if not found:
            near = difflib.get_close_matches(target, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise DiagnosedError(
                Reason.INVALID_SPEC, f"{where}.targetModules: the model has no module {target!r}. {hint}{there}"
            )
        other = next((item for item in found if not isinstance(item, ADAPTABLE)), None)
        if other is not None:
            raise DiagnosedError(
                Reason.INVALID_SPEC,
                f"{where}.targetModules: {target!r} is a {type(other).__name__}, which LoRA can't adapt. {there}",
            )


def _linear_names(model: Any, but: frozenset[str] = frozenset()) -> set[str]:
    """The last parts of the names of the matrices that LoRA adapts, without the output layer and the excluded ones."""
    output = model.get_output_embeddings()
    return {
        _last(name)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output and name not in but
    }


def _stacked(model: Any) -> list[str]:
    """The weights of all experts of a layer in one, in a model of whose experts peft knows no other names."""
    if _fusions(model):
        return []
    decoder = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    return [
        name
        for name, weight in model.named_parameters()
        if name.startswith(prefix) and EXPERTS in name.split(".") and weight.dim() == STACKED
    ]


def _targeted(model: Any, targets: list[str]) -> list[str]:
    """Those of them that are among the targets, by names within their layer."""
    names = _stacked(model)
    chosen = names if targets == ALL_LINEAR else [one for one in names if any(_is_named(one, to) for to in targets)]
    return sorted({_within_layer(name) for name in chosen})


def _names_a_module(model: Any, fused: frozenset[str], target: str) -> bool:
    return _last(target) in fused or any(_is_named(name, target) for name, _ in model.named_modules())


def _fused_names(model: Any) -> frozenset[str]:
    """The names that experts and routers have in the model's files, where transformers makes one weight of several."""
    return frozenset(_fusions(model))


def _expert_names(model: Any) -> set[str]:
    """The names of experts' weights."""
    return {name for name, fused in _fusions(model).items() if not fused.endswith(".weight")}  # that is the router's


def _named_like_experts(model: Any, targets: list[str], excluded: str | None) -> list[str]:
    """The matrices among the targets that peft passes over (shared experts, dense layers): it takes their names for
    those of the experts' weights."""
    names = [target for target in targets if _last(target) in _expert_names(model)]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and any(_is_named(name, target) for target in names)
        and not (excluded and re.fullmatch(excluded, name))
    ]


def _weights_of(model: Any, names: list[str]) -> list[str] | None:
    """How peft's config names the weights of these modules: without their layer, unless others are called so too."""
    others = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}.difference(names)
    within_layer = {name: _within_layer(name) for name in names}
    chosen = {
        short if not any(_is_named(other, short) for other in others) else name for name, short in within_layer.items()
    }
    return sorted(f"{name}.weight" for name in chosen) or None


def _is_named(name: str, target: str) -> bool:
    """As peft compares them."""
    return name == target or name.endswith(f".{target}")


def _fusions(model: Any) -> dict[str, str]:
    family = _MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type)
    return dict(_MOE_TARGET_MODULE_MAPPING.get(family, {}))


def routers(model: Any) -> frozenset[str]:
    """The names of the matrices that give each expert a number, and of those that weigh a shared expert.

    They are recognized by where they are: their shapes say nothing, since a head or a shared expert may be as wide as
    there are experts.
    """
    found = [
        child
        for parent in model.modules()
        for name, child in parent.named_children()
        if name == ROUTER or (name in GATES and hasattr(parent, "experts"))
    ]
    parts = {id(part) for router in found for part in router.modules()}
    return frozenset(
        name
        for name, module in model.named_modules()
        if id(module) in parts and isinstance(module, torch.nn.Linear | Conv1D)
    )


def _excluded(model: Any, gates: frozenset[str]) -> str | None:
    """A pattern of the modules that `all-linear` leaves out: routers, and what of a vision-language model sees.

    And those that peft refuses, since the kernels of state-space layers take their weights past an adapter.
    """
    patterns = sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in gates})  # of any layer
    bypassed = sorted(name for name in _linear_names(model) if _is_bypassed(model, name))
    patterns += [rf".*\.{re.escape(name)}" for name in bypassed]
    if hasattr(model.config, "vision_config"):
        decoder = model.get_decoder()
        name = next(name for name, module in model.named_modules() if module is decoder)
        patterns.append(rf"(?!{re.escape(name)}\.).*")
    return "|".join(patterns) or None


def _is_bypassed(model: Any, name: str) -> bool:
    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name)
    except ValueError:
        return True
    return False


def _within_layer(name: str) -> str:
    return re.sub(r"^.*?\.\d+\.", "", name)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def plain_name(name: str) -> str:
    """A module's name without peft's wrappers."""
    return re.sub(r"\.(base_layer|original_module)(?=\.|$)", "", name)
