"""How a Hugging Face Trainer keeps its state and gets it back: as training_state.py has it, saved in the background.

The Trainer has no public seam for this. What is overridden here are methods of transformers 5.20's Trainer, whose
version the image pins; a test fails when one of them is gone, or takes other arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer.checkpointing import training_state
from finetune_trainer.checkpointing.background_saves import BackgroundSaves
from finetune_trainer.checkpointing.training_state import Training


class Resumable:
    """To be mixed into a Trainer, before it: `class ResumableSFTTrainer(Resumable, SFTTrainer)`.

    `saves` must be set before `train()`. `train(resume_from_checkpoint=...)` takes a local folder of training_state.py.
    """

    saves: BackgroundSaves
    model: Any
    optimizer: Any
    lr_scheduler: Any
    state: Any
    args: Any

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.saves.save(self._training())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        training_state.restore_model(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            training_state.restore_optimizer(Path(checkpoint), self._training())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            training_state.restore_random_states(Path(checkpoint), self.args.process_index)

    def _training(self) -> Training:
        return Training.of(self.model, self.optimizer, self.lr_scheduler, self.state)
