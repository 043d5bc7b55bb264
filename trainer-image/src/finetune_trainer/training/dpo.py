"""Direct preference optimization: TRL's DPOTrainer on our tokens. The reference is what the run starts from."""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from finetune_api.finetunejob import DPO
from finetune_api.run import TrainRun
from finetune_trainer.checkpointing.resumable import Resumable
from finetune_trainer.models.models import LocalModel
from finetune_trainer.training.arguments import uses_bfloat16
from finetune_trainer.training.trainable import trains_new_adapter, whole_model

LOSSES = {"Sigmoid": "sigmoid", "Hinge": "hinge", "IPO": "ipo"}
REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of an adapter."""


def make_trainer(run: TrainRun, local: LocalModel, arguments: dict[str, Any], **parts: Any) -> ResumableDPOTrainer:
    """`arguments` are those of every method, `parts` what every Trainer takes: model, data, tokenizer, callbacks.

    Of a new adapter, the reference is the model with the adapter off; of one that is trained on, a frozen copy of it.
    Of Full it is a second model, in half precision where the machine has it: log-probabilities computed beforehand
    would need no memory, but every attempt and every node had to compute them again.
    """
    parameters, dpo = run.hyperparameters, run.method.dpo or DPO()
    settings = DPOConfig(
        **arguments,
        max_length=parameters.max_length,
        beta=parameters.beta,
        loss_type=[LOSSES[dpo.loss_type]],
    )
    reference = None
    if run.adapter.type == "Full":
        reference = whole_model(local, torch.bfloat16 if uses_bfloat16() else torch.float32)
    trainer = ResumableDPOTrainer(args=settings, ref_model=reference, **parts)
    if trains_new_adapter(run, local):
        trainer.model.delete_adapter(REFERENCE_ADAPTER)  # it does nothing yet: the model without it is the same
    return trainer


class ResumableDPOTrainer(Resumable, DPOTrainer):
    """TRL's, with saves in the background, on datasets that are tokenized already."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: DPOConfig, dataset_name: str) -> Any:
        """As TRL, leave out pairs of whose answers nothing is left within `max_length`."""
        return dataset.filter(lambda row: len(row["prompt_ids"]) < args.max_length)
