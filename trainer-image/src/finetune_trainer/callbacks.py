"""What happens at the steps of a training, beside the training: one callback for each thing."""

from __future__ import annotations

import math
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.manifest import Manifest
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer import checkpoints
from finetune_trainer.checkpoints import LocalCheckpoint
from finetune_trainer.commits import Committed
from finetune_trainer.events import EventLog
from finetune_trainer.failures import DiagnosedError
from finetune_trainer.gang import Gang
from finetune_trainer.heartbeat import heartbeat
from finetune_trainer.progress import Clock, ProgressSender, to_trainer_status
from finetune_trainer.storage import Storage

NARRATION_SECONDS = 5.0
REPORTED_METRICS = ("loss", "eval_loss", "learning_rate")

_log = structlog.get_logger()


class StopTogether(TrainerCallback):
    """After a SIGTERM to any process, all stop at the same step, which is saved."""

    def __init__(self, gang: Gang) -> None:
        self._gang = gang
        self._asked = False
        self.stopped = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._gang.any(self._asked) and state.global_step < state.max_steps:
            _log.info(f"told to stop: saving step {state.global_step}")
            self.stopped = control.should_save = control.should_training_stop = True


class RefuseInfiniteLoss(TrainerCallback):
    """A loss that is no number any more never becomes one again."""

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
                raise DiagnosedError(
                    Reason.LOSS_NOT_FINITE,
                    f"{name} became {value} at step {state.global_step}. Lower hyperparameters.learningRate "
                    "(a tenth is a start), raise warmupPercent, and look for broken examples.",
                )


class CommitCheckpoints(TrainerCallback):
    """Every save of the Trainer becomes a committed checkpoint; the older ones are removed."""

    def __init__(self, run: TrainRun, storage: Storage, gang: Gang, events: EventLog | None) -> None:
        self._run = run
        self._storage = storage
        self._gang = gang
        self._output = parse_s3(run.output_uri)
        self._events = events
        self.kept: list[Committed] = checkpoints.list_committed(storage, self._output) if gang.leads else []
        self.last: LocalCheckpoint | None = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        began = time.monotonic()
        local = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        manifest = Manifest(
            step=state.global_step,
            attempt=self._run.attempt,
            created=whole_seconds(datetime.now(UTC)),
            files=[],
            metrics=checkpoints.metrics_at(state.log_history, state.global_step, state.num_input_tokens_seen),
        )
        with heartbeat(f"storing the checkpoint of step {state.global_step}"):
            committed = checkpoints.commit(self._gang, self._storage, self._output, local, manifest)
        self.last = LocalCheckpoint(committed, local)
        if self._events is not None:
            self._events.add(
                f"Checkpoint of step {state.global_step} committed",
                type="checkpoint",
                step=state.global_step,
                uri=committed.folder.uri,
                seconds=round(time.monotonic() - began, 2),
            )
            self._events.store(state.log_history)
            self._remove_outdated(committed)

    def _remove_outdated(self, newest: Committed) -> None:
        settings = self._run.checkpoints
        self.kept = [item for item in self.kept if item.manifest.step != newest.manifest.step] + [newest]
        for committed in checkpoints.outdated(self.kept, settings.keep, settings.best):
            checkpoints.remove(self._storage, committed)
            self.kept.remove(committed)


class TellProgress(TrainerCallback):
    """Rank 0 tells the operator (at most every five seconds) and the log where the training is."""

    def __init__(self, sender: ProgressSender | None) -> None:
        self._sender = sender
        self._metrics: dict[str, float] = {}
        self._clock: Clock | None = None
        self._narrated = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._clock = Clock(state.global_step, state.num_input_tokens_seen)
        self._tell(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._metrics |= {name: value for name, value in (logs or {}).items() if name in REPORTED_METRICS}
        self._tell(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._metrics["checkpoint_step"] = state.global_step
        self._tell(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if time.monotonic() - self._narrated >= NARRATION_SECONDS:
            self._narrated = time.monotonic()
            _log.info(f"Step {state.global_step}/{state.max_steps}: evaluating")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tell(state)

    def _tell(self, state: TrainerState) -> None:
        if self._clock is None:
            return
        remaining = self._clock.remaining_seconds(state.global_step, state.max_steps)
        speed = self._clock.tokens_per_second(state.num_input_tokens_seen)
        if self._sender is not None:
            self._sender.send(
                to_trainer_status(
                    {
                        **self._metrics,
                        "current_step": state.global_step,
                        "total_steps": state.max_steps,
                        "current_epoch": round(state.epoch or 0.0, 4),
                        "tokens_per_second": round(speed, 1),
                    },
                    remaining,
                )
            )
        if time.monotonic() - self._narrated >= NARRATION_SECONDS and "loss" in self._metrics:
            self._narrated = time.monotonic()
            _log.info(
                f"Step {state.global_step}/{state.max_steps}: training loss={self._metrics['loss']:.4f}",
                tokens_per_second=round(speed),
                remaining_seconds=remaining,
            )
