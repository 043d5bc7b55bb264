"""How a training is saved while it runs: by the Trainer (Resumable), in a thread (BackgroundSaves), as a committed
checkpoint (CheckpointWriter).

Training stalls only while its state is copied to host memory; a thread uploads and commits it. There is one save at a
time: a save that takes longer than the interval to the next one makes training wait, so that there is never more than
one copy of the state in memory, and never more than one interval of steps to lose. The stalls are measured.

A Hugging Face Trainer has no public extension point for this. The methods that Resumable overrides are private ones of
transformers 5.20, whose version the image pins; a test fails when one of them is gone or takes other arguments.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from finetune_api.finetunejob import Checkpoints, CorruptCheckpoint
from finetune_api.pod_contracts.manifest import CheckpointKey
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_api.sources import StorageLocation
from finetune_trainer.checkpoint import checkpoints, evaluation_records, retention, training_state
from finetune_trainer.checkpoint.checkpoints import Resumed
from finetune_trainer.checkpoint.evaluation_records import Entry
from finetune_trainer.checkpoint.training_state import Snapshot, SnapshotTaker, Training
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process import heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.events import EventLog
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed
from finetune_trainer.storage.storage import Storage

MIN_REPORTED_WAIT_SECONDS = 1.0
UNNOTICED_SECONDS = 1.0
ABANDONED_SECONDS = 30.0
SWITCH_SECONDS = 0.0005
"""Training needs the GIL after each tensor operation: waiting 5 ms (the default) for an uploading thread adds up."""

_log = structlog.get_logger()


class RunIsOverError(Exception):
    """Training ends at the last checkpoint: early stopping, decided by an evaluation that an earlier attempt began."""


class Resumable:
    """A mixin for a Trainer, before it in the list of base classes.

    A step is saved before it is evaluated, so that a process that ends during a long evaluation loses nothing. The
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

    def __init__(self, *positional: Any, args: Any, **named: Any) -> None:
        # A process has one accelerator. With several in sight transformers would wrap the model in nn.DataParallel.
        args._n_gpu = min(args.n_gpu, 1)
        super().__init__(*positional, args=args, **named)  # type: ignore[call-arg]

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


@dataclass(frozen=True)
class Save:
    """A save in progress: how long it stalled training, and how much of that was waiting for the previous save."""

    step: int
    snapshot: Snapshot
    began: float
    waited_seconds: float
    stalled_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


class BackgroundSaves:
    """Takes snapshots of a training and hands each to `store`, which runs in a thread.

    What `store` raises is raised by the next `save` or `finish`, and shows in `failed` before. `on_stall` gets the
    seconds for which each save stalled training.
    """

    def __init__(
        self,
        snapshots: SnapshotTaker,
        store: Callable[[Save], None],
        on_stall: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._snapshots = snapshots
        self._store = store
        self._on_stall = on_stall
        self._thread: threading.Thread | None = None
        self._step = 0
        self._failure: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether a save has failed whose exception was not raised yet."""
        return self._failure is not None

    @property
    def last_step(self) -> int:
        """The step of the newest save; 0 before the first."""
        return self._step

    @property
    def under_way(self) -> bool:
        """Whether a save is being stored."""
        return self._thread is not None and self._thread.is_alive()

    def prepare(self, training: Training) -> None:
        """Start to allocate the memory for saves, after the first step; otherwise the first save would wait for it."""
        self._snapshots.prepare(training)

    def save(self, training: Training) -> None:
        """Start to save the current state, once the previous save is done."""
        began = time.monotonic()
        self.finish()
        waited = time.monotonic() - began
        self._step = training.state.global_step
        snapshot = self._snapshots.take(training)
        save = Save(self._step, snapshot, began, waited, stalled_seconds=time.monotonic() - began)
        self._on_stall(save.stalled_seconds)
        self._thread = threading.Thread(target=self._run, args=[save], name=f"save-{self._step}", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until no save is in progress. Raises what made one fail."""
        if self._thread is not None:
            heartbeats.beat(Phase.SAVING, self._step)
            self._thread.join(UNNOTICED_SECONDS)
            if self.under_way:
                with log_progress(f"waiting for the checkpoint of step {self._step}"):
                    self._thread.join()
        self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def abandon(self) -> None:
        """After a failure of training: wait up to ABANDONED_SECONDS for a save in progress, and ignore how it ends."""
        if self._thread is not None:
            self._thread.join(ABANDONED_SECONDS)

    def _run(self, save: Save) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            self._store(save)
        except Exception as error:  # not lost: the training's own thread raises it
            self._failure = error
        finally:
            sys.setswitchinterval(usual)


class CheckpointWriter:
    """Commits every save as a checkpoint. `store` runs in the saving thread, on every process of the gang.

    `gang` must be this thread's own (`Gang.for_another_thread`). `events` is rank 0's.
    """

    def __init__(
        self,
        settings: Checkpoints,
        storage: Storage,
        gang: Gang,
        claim: Claim,
        resumed: Resumed,
        events: EventLog | None,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._gang = gang
        self._claim = claim
        self.corrupt: tuple[CorruptCheckpoint, ...] = resumed.corrupt
        self._events = events
        self._longest: float | None = None
        self._stalled = 0.0
        self._evaluated: dict[int, dict[str, float]] = {}
        self._leads = gang.leads
        self._resumed = None if resumed.checkpoint is None else resumed.checkpoint.committed
        if resumed.checkpoint is not None:
            state = (resumed.checkpoint.path / checkpoints.TRAINER_STATE).read_bytes()
            self._evaluated = checkpoints.evaluations(state)
        self._kept: tuple[Committed, ...] = resumed.kept

    @property
    def kept(self) -> tuple[Committed, ...]:
        """The valid checkpoints, with what the evaluations so far measured of them."""
        return tuple(checkpoints.with_evaluations(self._kept, dict(self._evaluated)))

    def note_evaluation(self, entry: Entry) -> None:
        """Record the evaluation of a step, whose save may still be in progress. `entry`: from the Trainer's log."""
        step = int(entry["step"])
        self._evaluated[step] = evaluation_records.measured(entry)
        if self._leads:
            evaluation_records.record(self._storage, self._folder_of(step), entry)
            self._store_completions()

    def _store_completions(self) -> None:
        """Those of the evaluation that was recorded. A failure is only logged: the next save writes all events."""
        if self._events is None or not self._events.has_new_completions:
            return
        try:
            commits.refuse_fenced(self._storage, self._claim)
            self._events.store_events()
        except (DiagnosedError, DisruptedError) as error:
            _log.warning(f"completions could not be stored: {error}")

    def _folder_of(self, step: int) -> StorageLocation:
        if self._resumed is not None and self._resumed.manifest.step == step:
            return self._resumed.folder
        return commits.checkpoint_folder(self._claim.run, CheckpointKey(step=step, claim=self._claim.number))

    def settle(self) -> None:
        """After the last evaluation: prune what it made outdated. No save may be in progress."""
        kept = self.kept
        if kept:
            self._kept = self._gang.from_leader(lambda: self._prune(kept))

    @property
    def checkpoint_report(self) -> CheckpointReport:
        """What is reported of the checkpoints committed so far."""
        return checkpoints.to_report(self.kept, self.corrupt, self._settings.best, self._longest)

    def totals(self) -> dict[str, float]:
        """Seconds for which all saves stalled training, and seconds that the longest save took."""
        return {
            "stalled_seconds": round(self._stalled, 3),
            "longest_checkpoint_seconds": round(self._longest or 0.0, 2),
        }

    def store(self, save: Save) -> None:
        """Upload and commit. Raises DiagnosedError, or FencedError when another process holds the run now."""
        state = save.snapshot.trainer_state
        log = state["log_history"]
        with log_progress(f"storing the checkpoint of step {save.step}"):
            committed = checkpoints.commit(
                self._gang,
                self._storage,
                self._claim,
                save.snapshot.files(),
                step=save.step,
                metrics=checkpoints.metrics_at(log, save.step, state["num_input_tokens_seen"]),
                kept=self.kept,
            )
        self._longest = max(save.seconds, self._longest or 0.0)
        self._stalled += save.stalled_seconds
        self._record_save(save, committed)
        kept = self.kept
        if committed.manifest.key not in [item.manifest.key for item in kept]:
            kept = (*kept, committed)
        self._kept = self._gang.from_leader(lambda: self._clean_up(kept, log))

    def _clean_up(self, kept: tuple[Committed, ...], log: list[dict[str, float]]) -> tuple[Committed, ...]:
        """After a commit, on rank 0: prune, and write the event log. Returns the checkpoints that are kept."""
        remaining = self._prune(kept)
        if self._events is not None:
            commits.refuse_fenced(self._storage, self._claim)
            self._events.store(log)
        return remaining

    def _prune(self, kept: tuple[Committed, ...]) -> tuple[Committed, ...]:
        return retention.prune(self._storage, self._claim, kept, keep=self._settings.keep, best=self._settings.best)

    def _record_save(self, save: Save, committed: Committed) -> None:
        if self._events is None:
            return
        self._events.add(
            f"Checkpoint of step {save.step} committed",
            type="checkpoint",
            step=save.step,
            uri=committed.folder.uri,
            seconds=round(save.seconds, 2),
            stalled_seconds=round(save.stalled_seconds, 3),
        )
        if save.waited_seconds >= MIN_REPORTED_WAIT_SECONDS:
            self._events.add(
                f"Training waited {save.waited_seconds:.1f} s at step {save.step} for the checkpoint before: "
                "raise checkpoints.everySteps, or give the storage more bandwidth",
                type="back_pressure",
                step=save.step,
                seconds=round(save.waited_seconds, 2),
            )
