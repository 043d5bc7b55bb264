"""How a Hugging Face Trainer saves and restores its state: in the format of training_state.py, in the background.

The Trainer has no public extension point for this. The methods overridden here are private ones of transformers 5.20,
whose version the image pins; a test fails when one of them is gone or takes other arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finetune_trainer.checkpoint import training_state
from finetune_trainer.checkpoint.background_saves import BackgroundSaves
from finetune_trainer.checkpoint.training_state import Training


class RunIsOverError(Exception):
    """Early stopping, decided by an evaluation that an earlier attempt had not completed: the last checkpoint is the
    end."""


class Resumable:
    """To be mixed into a Trainer, before it: `class ResumableSFTTrainer(Resumable, SFTTrainer)`.

    A step is saved before it is evaluated, so that a process that ends in a long evaluation loses nothing. The
    evaluation does not advance the random generators: the next attempt repeats it first (eval_on_start), unless it was
    completed and recorded (evaluation_records.py).

    `saves` must be set before `train()`. `train(resume_from_checkpoint=...)` takes a local folder of training_state.py.
    """

    saves: BackgroundSaves
    model: Any
    optimizer: Any
    lr_scheduler: Any
    state: Any
    args: Any
    control: Any
    callback_handler: Any

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.saves.save(self._training())

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> Any:
        training = not skip_scheduler  # transformers sets it for the evaluation before the first step
        if training and self.control.should_save:
            self._save_checkpoint(self.model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)  # type: ignore[misc]
        if self.control.should_training_stop and not training:
            raise RunIsOverError
        self.control.should_save = False
        return metrics

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
