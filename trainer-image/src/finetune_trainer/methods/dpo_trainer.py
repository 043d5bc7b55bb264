"""TRL's DPOTrainer on pairs that are tokenized already. The reference is the model that the run starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import use_adapter

from finetune_api.finetunejob import DPO
from finetune_trainer.checkpoint.saving import Resumable
from finetune_trainer.data.encode.tokenization import IGNORED
from finetune_trainer.distributed.batches import examples_in_step
from finetune_trainer.methods.method import Row, TrainerParts
from finetune_trainer.methods.pass_metrics import CountTokensByStep, MetricsOverPasses
from finetune_trainer.methods.shared_batches import SharedBatches
from finetune_trainer.model.adapters import load_frozen_model, trains_new_adapter

LOSSES = {"Sigmoid": "sigmoid", "Hinge": "hinge", "IPO": "ipo"}
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
        reference = load_frozen_model(parts.source)
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


def losses_of_pairs(
    loss_type: str, beta: float, chosen: torch.Tensor, rejected: torch.Tensor, completions: torch.Tensor
) -> torch.Tensor:
    """The loss of each pair, in nats, by the log-ratios of its answers, each (pairs,).

    With the margin h of the log-ratios: -log sigmoid(beta h) of Rafailov et al. (2023), equation 7; the hinge
    max(0, 1 - beta h) of Zhao et al., "SLiC-HF" (2023); (h - 1 / (2 beta))^2 of Azar et al., "IPO" (2023), equation 17,
    where the log-ratios are means over the answers' tokens, as TRL has them. `completions`: the tokens of the chosen
    answers, then of the rejected ones, (2 * pairs, tokens).
    """
    if loss_type == "ipo":
        lengths = completions.sum(dim=1).clamp(min=1).chunk(2)
        return (chosen / lengths[0] - rejected / lengths[1] - 1 / (2 * beta)) ** 2
    margins = chosen - rejected
    return torch.relu(1 - beta * margins) if loss_type == "hinge" else -logsigmoid(beta * margins)


class ResumableDPOTrainer(MetricsOverPasses, CountTokensByStep, SharedBatches, Resumable, DPOTrainer):
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

        TRL's own would read metrics back from the accelerator in each pass.
        """
        completions = inputs["completion_mask"]
        asked = {name: value for name, value in inputs.items() if name != "completion_mask"}
        asked["labels"] = inputs["input_ids"].masked_fill(completions == 0, IGNORED)
        asked |= {"use_cache": False, "fused_lm_head": True}
        routed = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(**asked, **routed)
        ratios = outputs.log_probs.sum(dim=1) - self._reference(asked)
        chosen, rejected = ratios.chunk(2)
        is_pair = completions.any(dim=1).chunk(2)[0]
        losses = losses_of_pairs(self.loss_types[0], self.beta, chosen, rejected, completions)
        loss = losses.where(is_pair, 0).mean() * self._share_of_mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss
        of_chosen = completions[:, 1:].bool().chunk(2)[0]
        self.add_metric("mean_token_accuracy", outputs.is_top1.chunk(2)[0], of_chosen)
        self.add_metric("rewards/accuracies", (chosen > rejected).double(), is_pair)
        self.add_metric("rewards/margins", self.beta * (chosen - rejected), is_pair)
        return (loss, outputs) if return_outputs else loss

    def _reference(self, asked: dict[str, Any]) -> torch.Tensor:
        """The log-probability of each answer, (2 * pairs,), for the model that the run starts from."""
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            if self.ref_model is not None:
                return self.ref_model(**asked).log_probs.sum(dim=1)
            adapted = self.accelerator.unwrap_model(self.model)
            frozen = REFERENCE_ADAPTER if REFERENCE_ADAPTER in adapted.peft_config else None
            with use_adapter(adapted, adapter_name=frozen):
                return self.model(**asked).log_probs.sum(dim=1)

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
