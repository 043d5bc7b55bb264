"""TRL's DistillationTrainer: the loss is the divergence between the token probabilities of model and teacher."""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

from finetune_api.finetunejob import Distillation, Divergence
from finetune_trainer.generate.generation import stop_tokens
from finetune_trainer.methods.method import TrainerParts
from finetune_trainer.methods.on_policy import OnPolicy
from finetune_trainer.model.adapters import load_frozen_model

BETAS: dict[Divergence, float] = {"ForwardKL": 0.0, "JSD": 0.5, "ReverseKL": 1.0}
"""TRL's `beta`, of the generalized Jensen-Shannon divergence."""
NEVER = -100.0
"""The logit of a token that the teacher does not have."""


class ResumableDistillationTrainer(OnPolicy, DistillationTrainer):
    """TRL's DistillationTrainer, with saves in the background, on prompts that are tokenized already."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *inputs: Any, **more: Any) -> list[list[int]]:
        generate = super()._generate_single_turn
        return self.generated(prompt_ids, lambda part: generate(part, *inputs, **more))


def build_distillation_trainer(parts: TrainerParts, spec: Distillation) -> ResumableDistillationTrainer:
    """A step answers `batchSize` prompts, learns from these answers, and then is over."""
    assert parts.teacher is not None, "the run names the teacher of method.distillation"
    model = parts.model
    model.generation_config.eos_token_id = stop_tokens(model.generation_config.eos_token_id, parts.processor)
    settings = DistillationConfig(
        **parts.arguments
        | {
            "include_num_input_tokens_seen": "no",  # TRL counts by itself
            "max_completion_length": spec.max_completion_tokens,
            "temperature": spec.temperature,
            "beta": BETAS[spec.divergence],
        }
    )
    teacher = load_frozen_model(parts.teacher)
    fit_vocabulary(teacher, model.get_input_embeddings().weight.shape[0])
    trainer = ResumableDistillationTrainer(
        args=settings,
        model=model,
        teacher_model=teacher,
        train_dataset=parts.training,
        eval_dataset=parts.validation,
        processing_class=parts.processor,
        callbacks=parts.callbacks,
    )
    trainer.asked_to_stop = parts.asked_to_stop
    return trainer


def fit_vocabulary(teacher: Any, rows: int) -> None:
    """Give the teacher as many rows of tokens as the model has: sizes of one family are padded differently.

    Rows that are cut off stand for no token of their tokenizer; those that are added get no probability.
    """
    found = teacher.get_output_embeddings().weight.shape[0]
    if found == rows:
        return
    teacher.resize_token_embeddings(rows, mean_resizing=False)
    if found > rows:
        return
    head = teacher.get_output_embeddings()
    bias = torch.zeros(rows, dtype=head.weight.dtype, device=head.weight.device)
    if head.bias is not None:
        bias[:found] = head.bias.detach()[:found]
    bias[found:] = NEVER
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
