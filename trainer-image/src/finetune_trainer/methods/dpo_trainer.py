"""TRL's DPOTrainer on pairs that are tokenized already. The reference is the model that the run starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from finetune_api.finetunejob import DPO
from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.distributed.batches import examples_in_step
from finetune_trainer.methods.method import Row, TrainerParts
from finetune_trainer.methods.shared_batches import SharedBatches
from finetune_trainer.methods.token_count import CountTokensByStep
from finetune_trainer.model.adapters import load_merged_model, trains_new_adapter, uses_bfloat16

LOSSES = {"Sigmoid": "sigmoid", "Hinge": "hinge", "IPO": "ipo"}
MEANS_OVER_PAIRS = (
    *(f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins")),
    *(f"logps/{name}" for name in ("chosen", "rejected")),
)
"""TRL's metrics to which a blank adds nothing."""
REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of an adapter."""


def build_dpo_trainer(parts: TrainerParts, dpo: DPO, without_loss: Callable[[Row], Row]) -> ResumableDPOTrainer:
    """Of a new adapter the reference is the model with the adapter disabled; of an inherited one, a frozen copy of it.

    Of Full it is a second model, in half precision where the machine has it: log-probabilities computed beforehand
    would need no memory, but every attempt and every node would have to compute them again.
    """
    parameters = parts.hyperparameters
    settings = DPOConfig(
        **parts.arguments,
        max_length=parameters.max_length,
        beta=parameters.beta,
        loss_type=[LOSSES[dpo.loss_type]],
    )
    reference = None
    if parts.adapter.type == "Full":
        reference = load_merged_model(parts.source, torch.bfloat16 if uses_bfloat16() else torch.float32)
    trainer = ResumableDPOTrainer(
        args=settings,
        model=parts.model,
        ref_model=reference,
        train_dataset=parts.training,
        eval_dataset=parts.validation,
        processing_class=parts.processor,
        data_collator=parts.collator,
        callbacks=parts.callbacks,
    )
    if trains_new_adapter(parts.adapter, parts.source):
        trainer.model.delete_adapter(REFERENCE_ADAPTER)  # a new adapter changes nothing yet: the base is the same
    trainer.measured = 0 if trainer.eval_dataset is None else len(trainer.eval_dataset)
    trainer.share_batches(without_loss)
    return trainer


def loss_of_equals(loss_type: str, beta: float) -> float:
    """The loss, in nats, of a pair of equally likely answers, which a blank always is.

    With the margin h = 0 of the log-ratios: -log sigmoid(beta h) of Rafailov et al. (2023), equation 7; the hinge
    max(0, 1 - beta h) of Zhao et al., "SLiC-HF" (2023); (h - 1 / (2 beta))^2 of Azar et al., "IPO" (2023), equation 17.
    """
    return {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1 / (2 * beta) ** 2}[loss_type]


class ResumableDPOTrainer(CountTokensByStep, SharedBatches, Resumable, DPOTrainer):
    """TRL's DPOTrainer, with saves in the background, on datasets that are tokenized already.

    TRL averages over the pairs of each pass, and then over the passes; here a pass with blanks is weighted by its
    pairs.
    """

    measured = 0
    """Pairs to evaluate on, without blanks."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of the pass's real pairs, weighted by `_share_of_mean`.

        `inputs`: the chosen answers of the pass's pairs, then the rejected ones: `input_ids`, `attention_mask` and
        `completion_mask`, each (2 * pairs, tokens). A blank has no completion.
        """
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        share = self._share_of_mean()
        if share == 1:
            return result
        mode = "train" if self.model.training else "eval"
        for name in MEANS_OVER_PAIRS:
            self._metrics[mode][name][-1] *= share
        blanks = 1 - inputs["completion_mask"].any(dim=1).chunk(2)[0].float().mean()
        loss, *outputs = result if return_outputs else (result,)
        loss = (loss - blanks * loss_of_equals(self.loss_types[0], self.beta)) * share
        return (loss, *outputs) if return_outputs else loss

    def _share_of_mean(self) -> float:
        """The factor by which blanks reduce the weight of a real pair in the mean over a step, or an evaluation."""
        if not self.model.training:
            return float(len(self.eval_dataset) / self.measured)
        if len(self.train_dataset) == self.examples:
            return 1.0
        here = self.args.train_batch_size * self.args.world_size
        batch = here * self.args.gradient_accumulation_steps
        pairs = examples_in_step(self.examples, batch, self.state.global_step)
        return float(here * self.current_gradient_accumulation_steps / pairs)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: DPOConfig, dataset_name: str) -> Any:
        """Leave out pairs whose answers are cut off completely at `max_length`, as TRL does."""
        return dataset.filter(lambda row: len(row["prompt_ids"]) < args.max_length)
