"""The TrainingArguments that all methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finetune_api.finetunejob import Schedule
from finetune_api.run import TrainRun
from finetune_trainer.model.passes import Passes
from finetune_trainer.model.trainable import uses_bfloat16

SCHEDULERS: dict[Schedule, str] = {
    "Cosine": "cosine",
    "Linear": "linear",
    "Constant": "constant_with_warmup",
}


def common_arguments(
    run: TrainRun,
    passes: Passes,
    directory: Path,
    *,
    processes: int,
    evaluate: bool,
    images: bool,
    last_step: int | None,
) -> dict[str, Any]:
    """Keyword arguments of TrainingArguments. What the spec does not set keeps TRL's default.

    `images`: whether the model takes images. `last_step`: the step at which the run has ended already.
    """
    on_gpu = torch.cuda.is_available()
    parameters = run.hyperparameters
    return {
        "output_dir": str(directory),
        "per_device_train_batch_size": passes.split.per_pass,
        "gradient_accumulation_steps": passes.split.passes,
        "per_device_eval_batch_size": passes.split.per_pass,
        "num_train_epochs": parameters.epochs,
        "max_steps": last_step or -1,
        "learning_rate": parameters.learning_rate,
        "lr_scheduler_type": SCHEDULERS[parameters.schedule],
        "warmup_steps": min(parameters.warmup_percent / 100, 0.9999),  # below 1 it is a share of all steps
        "weight_decay": parameters.weight_decay,
        "seed": parameters.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": parameters.checkpoint_every_steps,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": parameters.checkpoint_every_steps,
        # Of the Trainer's own saving, which Resumable replaces: else it refuses sharded models.
        "save_only_model": True,
        "include_num_input_tokens_seen": "non_padding",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "bf16": uses_bfloat16(),
        "gradient_checkpointing": passes.recomputed,
        "dataloader_pin_memory": on_gpu,
        "ddp_backend": None if on_gpu or processes == 1 else "gloo",
        # A batch without an image leaves the vision tower out; LoRA doesn't train that.
        "ddp_find_unused_parameters": images and run.adapter.type == "Full",
        "remove_unused_columns": not images,  # the collator reads them
    }
