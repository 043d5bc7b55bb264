"""The callbacks of a training, one for each thing that happens at its steps; early stopping: early_stopping.py."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_trainer.checkpoint.evaluation_records import is_evaluation
from finetune_trainer.checkpoint.saving import BackgroundSaves
from finetune_trainer.checkpoint.training_state import Training
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.report.events import EventLog
from finetune_trainer.report.measures import Measure, measured
from finetune_trainer.report.progress import Clock, ProgressReceiver, to_trainer_status

LOG_SECONDS = 5.0
REPORT_SECONDS = 0.5
"""Creating a report takes longer than all other work here at a step. The sender sends even fewer of them."""
RECORDED_STEPS = 100
REPORTED_METRICS = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "reward_mean": "reward",
    "eval_reward_mean": "valid_reward",
    "eval_reward_gap": "reward_gap",
    "eval_completion_growth": "completion_growth",
}
"""The names in the Trainer's log, and in reports."""

_log = structlog.get_logger()


class StopOnSigterm(TrainerCallback):
    """After a SIGTERM to any process, stops all processes at the same step, which is saved. So does a failed save.

    In an evaluation they stop at once, with a DisruptedError: its step was saved before.
    """

    def __init__(self, gang: Gang, saves: BackgroundSaves) -> None:
        self._gang = gang
        self._saves = saves
        self._asked = False
        self.stopped = False
        signal.signal(signal.SIGTERM, self._ask)

    @property
    def asked(self) -> bool:
        """Whether this process got a SIGTERM."""
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = self._gang.last_step(state.global_step, asked=self._asked or self._saves.failed)
        if last is None or state.global_step < last:
            return
        self._saves.finish()  # raises what made one fail
        if state.global_step < state.max_steps:
            _log.info(f"asked to stop: saving step {state.global_step}")
            self.stopped = control.should_save = control.should_training_stop = True

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # All are asked each time: nothing else keeps processes with accelerators together in an evaluation.
        if any(self._gang.gather(lambda: self._asked)):
            _log.info(f"asked to stop in the evaluation of step {state.global_step}")
            raise DisruptedError(f"asked to stop in the evaluation of step {state.global_step}")


class RecordEvaluations(TrainerCallback):
    """Hands each evaluation, as an entry of the Trainer's log, to the writer of checkpoints."""

    def __init__(self, note: Callable[[dict[str, float]], None]) -> None:
        self._note = note

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._note(next(entry for entry in reversed(state.log_history) if is_evaluation(entry)))


class PreallocateSnapshots(TrainerCallback):
    """Allocates the memory for saves during the second step, so that the first save does not wait for it."""

    def __init__(self, saves: BackgroundSaves) -> None:
        self._saves = saves

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saves.prepare(Training.of(kwargs["model"], kwargs["optimizer"], kwargs["lr_scheduler"], state))


class RequireFiniteLoss(TrainerCallback):
    """Ends a training whose loss is NaN or infinite: it does not recover.

    `refuse_weights` raises when the base model's weights are the cause, not the data or the learning rate.
    """

    def __init__(self, refuse_weights: Callable[[], None]) -> None:
        self._refuse_weights = refuse_weights

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("loss", "eval_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                heartbeats.beat(Phase.STARTING, state.global_step)  # a large model's files are read again for minutes
                self._refuse_weights()
                raise DiagnosedError(
                    Reason.LOSS_NOT_FINITE,
                    f"{name} became {value} at step {state.global_step}. Lower hyperparameters.learningRate "
                    "(a tenth is a start), raise warmupPercent, and look for broken examples.",
                )


class ReportProgress(TrainerCallback):
    """Reports the progress to the operator (at most every five seconds) and to the log. Rank 0 only."""

    def __init__(
        self,
        sender: ProgressReceiver | None,
        checkpoint_report: Callable[[], CheckpointReport],
        metrics: Mapping[str, str],
    ) -> None:
        self._sender = sender
        self._checkpoint_report = checkpoint_report
        self._metrics: dict[str, float] = {}
        self._of_method = metrics
        self._shown: dict[str, float] = {}
        self._clock: Clock | None = None
        self._logged_time = self._reported_time = 0.0
        self._logged_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._clock = Clock(state.global_step, state.num_input_tokens_seen)
        self.report(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._metrics |= {name: logs[key] for key, name in REPORTED_METRICS.items() if logs and key in logs}
        if logs and is_evaluation(logs):
            # Until the next evaluation, later steps are reported with what this one measured.
            self._metrics["eval_step"] = state.global_step
        self._shown |= {name: round(logs[key], 4) for name, key in self._of_method.items() if logs and key in logs}
        now = time.monotonic()
        if now - self._reported_time >= REPORT_SECONDS or now - self._logged_time >= LOG_SECONDS:
            self.report(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if time.monotonic() - self._logged_time >= LOG_SECONDS:
            self._logged_time = time.monotonic()
            _log.info(f"Step {state.global_step}/{state.max_steps}: evaluating")

    def report(self, state: TrainerState) -> None:
        """Report now, including what was committed since the last step."""
        if self._clock is None:
            return
        self._reported_time = time.monotonic()
        remaining = self._clock.remaining_seconds(state.global_step, state.max_steps)
        speed = self._clock.tokens_per_second(state.num_input_tokens_seen)
        if self._sender is not None:
            checkpoint_report = self._checkpoint_report()
            committed = (
                {"checkpoint_step": checkpoint_report.checkpoints[-1].step} if checkpoint_report.checkpoints else {}
            )
            self._sender.send(
                to_trainer_status(
                    {
                        **self._metrics,
                        **committed,
                        "current_step": state.global_step,
                        "total_steps": state.max_steps,
                        "current_epoch": round(state.epoch or 0.0, 4),
                        "tokens_per_second": round(speed, 1),
                    },
                    remaining,
                ),
                checkpoint_report,
            )
        is_last = state.global_step == state.max_steps and state.global_step != self._logged_step
        if (is_last or time.monotonic() - self._logged_time >= LOG_SECONDS) and "loss" in self._metrics:
            self._logged_time, self._logged_step = time.monotonic(), state.global_step
            _log.info(
                f"Step {state.global_step}/{state.max_steps}: training loss={self._metrics['loss']:.4f}",
                tokens_per_second=round(speed),
                remaining_seconds=remaining,
                **self._shown,
            )


class RecordMetrics(TrainerCallback):
    """Records losses or rewards as OpenAI's events have them: a hundred times a run, and each validation, which is
    logged too.

    Rank 0 only.
    """

    def __init__(self, events: EventLog, measures: Sequence[Measure]) -> None:
        self._events = events
        self._measures = measures
        self._newest: dict[Measure, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = measured(self._measures, logs or {})
        self._newest |= found
        is_validation = any(measure.of_evaluations for measure in found)
        if not found or (control.should_evaluate and not is_validation):
            return  # the validation of this step, which comes next, is recorded with what the step measured
        every = max(1, state.max_steps // RECORDED_STEPS)
        if state.global_step in (1, state.max_steps) or state.global_step % every == 0 or is_validation:
            shown = {measure.name: value for measure, value in (self._newest if is_validation else found).items()}
            numbers = ", ".join(f"{name}={value:.2f}" for name, value in shown.items())
            record = self._events.add if is_validation else self._events.note
            record(
                f"Step {state.global_step}/{state.max_steps}: {numbers}",
                type="metrics",
                step=state.global_step,
                **{name.replace(" ", "_"): value for name, value in shown.items()},
            )


class SendHeartbeats(TrainerCallback):
    """Tells the watchdog what this process does. It must be the last callback: it reads what the others decided."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        heartbeats.beat(Phase.TRAINING, state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_evaluate:
            heartbeats.beat(Phase.EVALUATING, state.global_step)
        else:
            heartbeats.beat(Phase.SAVING if control.should_save else Phase.TRAINING, state.global_step)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        heartbeats.beat(Phase.EVALUATING, state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        heartbeats.beat(Phase.SAVING if control.should_save else Phase.TRAINING, state.global_step)
