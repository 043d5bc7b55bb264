"""Turns each save into a committed checkpoint and an event, and prunes outdated checkpoints. Runs in the background."""

from __future__ import annotations

from finetune_api.finetunejob import Checkpoints, CorruptCheckpoint
from finetune_api.manifest import CheckpointKey
from finetune_api.progress import CheckpointLedger
from finetune_api.sources import S3Location
from finetune_trainer.checkpoint import checkpoints, evaluation_records, retention
from finetune_trainer.checkpoint.background_saves import Save
from finetune_trainer.checkpoint.checkpoints import Resumed
from finetune_trainer.checkpoint.evaluation_records import Entry
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.report.events import EventLog
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim, Committed
from finetune_trainer.storage.storage import Storage

WORTH_TELLING_SECONDS = 1.0


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
        self._evaluated: dict[int, float] = {}
        self._leads = gang.leads
        self._resumed = None if resumed.checkpoint is None else resumed.checkpoint.committed
        if resumed.checkpoint is not None:
            state = (resumed.checkpoint.path / checkpoints.TRAINER_STATE).read_bytes()
            self._evaluated = checkpoints.evaluations(state)
        self._kept: tuple[Committed, ...] = resumed.kept

    @property
    def kept(self) -> tuple[Committed, ...]:
        """The valid checkpoints, with the validation losses known so far."""
        return tuple(checkpoints.with_evaluations(self._kept, dict(self._evaluated)))

    def note_evaluation(self, entry: Entry) -> None:
        """Record the evaluation of a step, whose save may still be in progress. `entry`: from the Trainer's log."""
        step = int(entry["step"])
        if "eval_loss" in entry:
            self._evaluated[step] = entry["eval_loss"]
        if self._leads:
            evaluation_records.record(self._storage, self._folder_of(step), entry)

    def _folder_of(self, step: int) -> S3Location:
        if self._resumed is not None and self._resumed.manifest.step == step:
            return self._resumed.folder
        return commits.checkpoint_folder(self._claim.run, CheckpointKey(step=step, claim=self._claim.number))

    def settle(self) -> None:
        """After the last evaluation: prune what it made outdated. No save may be in progress."""
        kept = self.kept
        if kept:
            self._kept = self._gang.from_leader(lambda: self._prune(kept))

    @property
    def ledger(self) -> CheckpointLedger:
        """What is reported of the checkpoints committed so far."""
        return checkpoints.to_ledger(self.kept, self.corrupt, self._settings.best, self._longest)

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
        self._tell(save, committed)
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

    def _tell(self, save: Save, committed: Committed) -> None:
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
        if save.waited_seconds >= WORTH_TELLING_SECONDS:
            self._events.add(
                f"Training waited {save.waited_seconds:.1f} s at step {save.step} for the checkpoint before: "
                "raise checkpoints.everySteps, or give the storage more bandwidth",
                type="back_pressure",
                step=save.step,
                seconds=round(save.waited_seconds, 2),
            )
