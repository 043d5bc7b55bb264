"""The model that is trained: in memory, with a new adapter or the one that it came with, sharded or not."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import set_seed

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Adapter
from finetune_api.run import TrainRun
from finetune_trainer.models.models import LocalModel, load_model
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.training.arguments import uses_bfloat16


def trainable_model(run: TrainRun, local: LocalModel) -> Any:
    """The model in memory: for LoRA with a new adapter, or the one that it came with; for Full as a whole."""
    half = uses_bfloat16() and run.adapter.type == "LoRA"  # what is trained itself is kept in full precision
    model = load_model(local, torch.bfloat16 if half else torch.float32, trainable_adapter=True)
    if run.adapter.type == "Full":
        return model.merge_and_unload() if local.adapter is not None else model
    if local.adapter is not None:
        return model
    set_seed(run.hyperparameters.seed)
    try:
        return get_peft_model(model, _lora(run.adapter, model))
    except ValueError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, f"adapter.targetModules: {error}") from error


def _lora(adapter: Adapter, model: Any) -> LoraConfig:
    everything = adapter.target_modules == ["all-linear"]
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear" if everything else adapter.target_modules,
        exclude_modules=_beside_language(model) if everything else None,
        task_type="CAUSAL_LM",
    )


def _beside_language(model: Any) -> str | None:
    """A pattern of the modules of a vision-language model that see: `all-linear` means those of its language model."""
    decoder = model.get_decoder()
    if not hasattr(model.config, "vision_config"):
        return None
    name = next(name for name, module in model.named_modules() if module is decoder)
    return rf"(?!{re.escape(name)}\.).*"
