"""Which matrices of a model have an adapter and which don't, in one line: peft does not report what it leaves out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.pytorch_utils import Conv1D

from finetune_trainer.model.adapters import plain_name
from finetune_trainer.model.target_modules import routers

SHOWN_NAMES = 20
WEIGHTS = 3
"""Dimensions of a weight that holds the matrices of all experts."""


@dataclass(frozen=True)
class AdapterSummary:
    """Names within a layer, sorted. One that only some layers adapt is in both."""

    adapted: tuple[str, ...]
    left_out: tuple[str, ...]
    """Matrices and weights of experts; without embeddings, the output layer, routers, and what reads images."""

    def __str__(self) -> str:
        words = f"The adapter is on {_shown(self.adapted)}"
        return words + (f"; not on {_shown(self.left_out)}." if self.left_out else ".")


def adapter_summary(tuned: PeftModel) -> AdapterSummary:
    """Which parts of a model have an adapter, new or inherited."""
    base = tuned.get_base_model()
    adapted = set(_adapted(base))
    left_out = set(_matrices(base)) - adapted
    return AdapterSummary(_within_layer(adapted), _within_layer(left_out))


def _adapted(base: Any) -> Iterator[str]:
    for name, module in base.named_modules():
        if isinstance(module, ParamWrapper):
            yield _weight_name(plain_name(name), module.parameter_name)
        elif isinstance(module, BaseTunerLayer):
            yield plain_name(name)


def _matrices(base: Any) -> Iterator[str]:
    """Everything that an adapter could be on."""
    decoder = base.get_decoder()
    start = next(name for name, module in base.named_modules() if module is decoder)
    skipped, output = {plain_name(name) for name in routers(base)}, base.get_output_embeddings()
    for name, module in base.named_modules():
        if not name.startswith(start) or ".lora_" in name or module is output or plain_name(name) in skipped:
            continue
        if isinstance(module, torch.nn.Linear | Conv1D):
            yield plain_name(name)
        elif not isinstance(module, torch.nn.modules.conv._ConvNd):
            for weight, value in module.named_parameters(recurse=False):
                if value.dim() == WEIGHTS:
                    yield _weight_name(plain_name(name), weight)


def _weight_name(module: str, weight: str) -> str:
    return module if weight == "weight" else f"{module}.{weight}"


def _within_layer(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted({re.sub(r"^.*?\.\d+\.", "", name) for name in names}, key=lambda name: name.rpartition(".")))


def _shown(names: tuple[str, ...]) -> str:
    """Those of one module together: `self_attn (k_proj, q_proj), mlp (up_proj)`."""
    groups = itertools.groupby(names[:SHOWN_NAMES], lambda name: name.rpartition(".")[0])
    shown = ", ".join(_of_module(module, [name.rpartition(".")[2] for name in group]) for module, group in groups)
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")


def _of_module(module: str, names: list[str]) -> str:
    return f"{module} ({', '.join(names)})" if module else ", ".join(names)
