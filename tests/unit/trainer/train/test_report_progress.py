"""What is reported to the operator of the steps and losses that the Trainer logs."""

from __future__ import annotations

from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.progress import CheckpointReport, TrainerStatus, to_progress
from finetune_trainer.train.callbacks import ReportProgress


class Kept:
    """The receiver of the reports."""

    def __init__(self) -> None:
        self.reports: list[Progress | None] = []

    def send(self, status: TrainerStatus, checkpoint_report: CheckpointReport | None = None) -> None:
        self.reports.append(to_progress(status))

    def close(self) -> None:
        pass


def test_the_validation_loss_is_reported_with_the_step_at_which_it_was_measured() -> None:
    """A step's training log comes before its evaluation, so the loss that is known then is an earlier one's."""
    kept = Kept()
    progress = ReportProgress(kept, CheckpointReport, {})
    arguments, control, state = TrainingArguments(), TrainerControl(), TrainerState(max_steps=100)
    progress.on_train_begin(arguments, state, control)
    logs: list[tuple[int, dict[str, float]]] = [(40, {"eval_loss": 0.7}), (60, {"loss": 0.5}), (60, {"eval_loss": 0.6})]
    told = []
    for step, log in logs:
        state.global_step = step
        progress.on_log(arguments, state, control, log)
        progress.report(state)
        if (last := kept.reports[-1]) is not None:
            told.append((last.step, last.eval_loss, last.eval_step))
    assert told == [(40, 0.7, 40), (60, 0.7, 40), (60, 0.6, 60)]
