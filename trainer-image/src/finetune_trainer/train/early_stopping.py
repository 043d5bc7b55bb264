"""hyperparameters.earlyStopping. It is decided by the Trainer's log alone, which every checkpoint contains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_api.finetunejob import EarlyStopping
from finetune_trainer.checkpoint.training_state import TRAINER_STATE

_log = structlog.get_logger()


def is_over(log: Iterable[Mapping[str, float]], settings: EarlyStopping) -> bool:
    """Whether none of the last `patience` evaluations in a Trainer's log was `min_delta` better than those before."""
    best, without = float("inf"), 0
    for loss in (entry["eval_loss"] for entry in log if "eval_loss" in entry):
        if loss < best - settings.min_delta:
            best, without = loss, 0
        else:
            without += 1
    return without >= settings.patience


def was_over(checkpoint: Path, settings: EarlyStopping) -> bool:
    """Whether early stopping had ended the run at a checkpoint (a local folder)."""
    return is_over(json.loads((checkpoint / TRAINER_STATE).read_bytes())["log_history"], settings)


class StopEarly(TrainerCallback):
    """Ends the training after an evaluation, at a step that is saved before."""

    def __init__(self, settings: EarlyStopping) -> None:
        self._settings = settings

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if is_over(state.log_history, self._settings) and state.global_step < state.max_steps:
            _log.info(
                f"Step {state.global_step}/{state.max_steps}: evalLoss has not fallen by more than "
                f"{self._settings.min_delta} in {self._settings.patience} evaluations: the run ends here"
            )
            control.should_save = control.should_training_stop = True
