"""Step 2: the claim on the run, and the checkpoint that this attempt continues from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from finetune_api.run import TrainRun
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.checkpoints import LocalCheckpoint, Resumed
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim
from finetune_trainer.train.attempt import Attempt
from finetune_trainer.train.early_stopping import was_over


@dataclass(frozen=True)
class Start:
    """Where an attempt starts: at the first step, or at a checkpoint."""

    claim: Claim
    resumed: Resumed
    last_step: int | None
    """The step of the checkpoint, if the run had stopped early there: only its result is missing."""
    evaluates_first: bool
    """Whether the checkpoint's step has yet to be evaluated: the process that saved it ended before."""

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint's local folder."""
        return None if self.resumed.checkpoint is None else self.resumed.checkpoint.path


def restore(attempt: Attempt) -> Start:
    """Claim the run, and fetch its newest good checkpoint to every node. Raises DiagnosedError (CheckpointCorrupt)."""
    run, storage, gang = attempt.run, attempt.storage, attempt.gang
    claim = gang.from_leader(lambda: commits.claim(storage, attempt.output, run.attempt))
    with log_progress("looking for a checkpoint"):
        start_over = run.checkpoints.start_over_if_corrupt
        resumed = checkpoints.resume(
            gang, storage, claim, attempt.directory / "resume", start_over_if_corrupt=start_over
        )
    checkpoint = resumed.checkpoint
    if checkpoint is None:
        return Start(claim, resumed, last_step=None, evaluates_first=False)
    early_stopping = run.hyperparameters.early_stopping
    over = early_stopping is not None and was_over(checkpoint.path, early_stopping)
    return Start(
        claim,
        resumed,
        last_step=checkpoint.committed.manifest.step if over else None,
        evaluates_first=run.dataset.validation is not None and _is_unevaluated(checkpoint, run),
    )


def _is_unevaluated(checkpoint: LocalCheckpoint, run: TrainRun) -> bool:
    step = checkpoint.committed.manifest.step
    state = (checkpoint.path / checkpoints.TRAINER_STATE).read_bytes()
    every, last = run.hyperparameters.checkpoint_every_steps, json.loads(state)["max_steps"]
    return step not in checkpoints.evaluated_steps(state) and (step % every == 0 or step >= last)
