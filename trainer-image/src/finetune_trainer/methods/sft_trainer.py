"""TRL's SFTTrainer on rows that are tokenized and labelled already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.data.encode.tokenization import IGNORED, PROMPT_MARK
from finetune_trainer.methods.method import Row, TrainerParts
from finetune_trainer.methods.pass_metrics import CountTokensByStep, MetricsOverPasses
from finetune_trainer.methods.shared_batches import SharedBatches


def build_sft_trainer(
    parts: TrainerParts, prompt_loss_weight: float, without_loss: Callable[[Row], Row]
) -> ResumableSFTTrainer:
    """`prompt_loss_weight`: the weight, from 0 to 1, of a token of the prompt (PROMPT_MARK)."""
    parameters = parts.hyperparameters
    settings = SFTConfig(
        **parts.arguments,
        max_length=parameters.max_length,
        packing=parts.packs,
    )
    trainer = ResumableSFTTrainer(
        args=settings,
        model=parts.model,
        train_dataset=parts.training,
        eval_dataset=parts.validation,
        processing_class=parts.processor,
        data_collator=parts.collator,
        callbacks=parts.callbacks,
    )
    trainer.prompt_loss_weight = prompt_loss_weight
    trainer.share_batches(without_loss)
    return trainer


class ResumableSFTTrainer(MetricsOverPasses, CountTokensByStep, SharedBatches, Resumable, SFTTrainer):
    """TRL's SFTTrainer, with saves in the background, and loss on the prompt where labels mark it (PROMPT_MARK).

    The loss of a step is the weighted mean over its tokens, as in Huerta-Enochian and Ko, "Instruction Fine-Tuning:
    Does Prompt Loss Matter?" (2024): the assistant's tokens weigh 1, the prompt's `prompt_loss_weight`. That of an
    evaluation is the mean over its tokens too, where TRL's is a mean of means that changes with the batches.
    """

    prompt_loss_weight = 0.0
    _evaluated: torch.Tensor
    """(2,), float64: the summed loss in nats, and the number of tokens with loss, of the evaluation in progress."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The summed loss of a pass, or its mean, over `num_items_in_batch` (_get_num_items_in_batch).

        `inputs`: `input_ids` and `labels`, int64, (rows, tokens). The model's `log_probs`, `label_mask` and `is_top1`
        are (rows, tokens - 1): each is of the token that follows.

        TRL's own would read metrics back from the accelerator in each pass.
        """
        labels = inputs["labels"]
        is_prompt = labels <= PROMPT_MARK
        settings = {"use_cache": False, "fused_lm_head": True}
        if self.aux_loss_enabled:
            settings["output_router_logits"] = True
        outputs = model(**{**inputs, "labels": torch.where(is_prompt, PROMPT_MARK - labels, labels)}, **settings)
        of_prompt = is_prompt[:, 1:]
        weights = torch.where(of_prompt, self.prompt_loss_weight, 1.0)
        of_assistant = outputs.label_mask & ~of_prompt
        self.add_metric("mean_token_accuracy", outputs.is_top1, of_assistant)
        tokens = of_assistant.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = -(weights * outputs.log_probs).sum() / tokens.clamp(min=1)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # whose gradients are averaged
        if self.aux_loss_enabled:
            passes = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / passes
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """The divisor of a step's summed loss, a scalar tensor: the sum of its tokens' weights, over all processes."""
        items = super()._get_num_items_in_batch(batch_samples, device)
        if not self.prompt_loss_weight or items is None:
            return items
        prompts = sum((batch["labels"][..., 1:] <= PROMPT_MARK).sum() for batch in batch_samples)
        prompts = self.accelerator.gather(torch.as_tensor(prompts).to(device)).sum()
        return items - (1 - self.prompt_loss_weight) * prompts

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Predict one batch, and add the loss of its tokens to `_evaluated`; TRL's is their mean."""
        predicted = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        tokens = (inputs["labels"][..., 1:] != IGNORED).sum().to(predicted[0].device)
        self._evaluated += torch.stack([predicted[0].double() * tokens, tokens])
        return predicted

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **settings: Any) -> Any:
        """Evaluate, with the mean loss over all tokens of all processes in place of the mean over the batches."""
        self._evaluated = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(*arguments, metric_key_prefix=metric_key_prefix, **settings)
        loss, tokens = self.accelerator.reduce(self._evaluated).tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = loss / max(tokens, 1)
        return output
