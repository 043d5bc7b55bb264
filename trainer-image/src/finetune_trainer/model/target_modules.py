"""Which modules and weights of a model LoRA adapts: `targetModules`, or all linear layers, by name as peft has it.

Experts are the hard part: transformers makes one weight of those of a layer, peft knows some of them by the names that
they have in the files, and routers, which `all-linear` leaves out, look like any other linear layer.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.transformers_weight_conversion import _MODEL_TO_CONVERSION_PATTERN, _MOE_TARGET_MODULE_MAPPING
from transformers.pytorch_utils import Conv1D

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter
from finetune_trainer.process.failures import DiagnosedError

ALL_LINEAR = ["all-linear"]
SHOWN_NAMES = 20
ADAPTABLE = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
EXPERTS, STACKED = "experts", 3
"""The module that holds a layer's experts, and the dimensions of a weight that stacks all of them."""
ROUTER = "router"
GATES = ("gate", "shared_expert_gate")
"""Routers too, but only next to `experts`: elsewhere a gate is one of the layer's own matrices."""


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
            f"{where}.dropout is {settings.dropout}, and the targets are expert weights, which do not support dropout. "
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


def refuse_unknown_targets(model: Any, targets: list[str], where: str) -> None:
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
    """Names of the stacked expert weights, for architectures whose experts peft can't address one by one."""
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
    """The stacked expert weights among the targets, by names within their layer."""
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
    """Regex of the modules that `all-linear` excludes: routers and the vision tower.

    And those that peft refuses, since the kernels of state-space layers use their weights without the adapter.
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
