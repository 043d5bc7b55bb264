"""Steps 1 and 2, before the model is in memory.

Step 1, prepare: the model and the data on this node's disk, and the micro-batches of a step.
Step 2, restore: the claim on the run, and the checkpoint from which this attempt resumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource, TrainRun
from finetune_api.sources import StorageLocation, parse_location
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.checkpoints import LocalCheckpoint, Resumed
from finetune_trainer.data.encode.chat_template import reads_images
from finetune_trainer.data.encode.vision import NO_SHARDED_VISION
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.methods.method import Method, method_of
from finetune_trainer.model.loading import LocalModel, fetch_model, load_processor
from finetune_trainer.model.micro_batches import MicroBatches, choose_micro_batches
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage import commits
from finetune_trainer.storage.commits import Claim
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.early_stopping import was_over
from finetune_trainer.train.training_data import SequenceSets, load_sequences, write_sequences

DATA = "data"
"""The folder of the tokenized datasets, below the attempt's directory."""


@dataclass(frozen=True)
class Attempt:
    """One process's share of an attempt to train a run."""

    run: TrainRun
    gang: Gang
    storage: Storage
    directory: Path
    """This node's scratch folder, shared by its processes."""

    @property
    def output(self) -> StorageLocation:
        """The run's folder in the storage."""
        return parse_location(self.run.output_uri)

    @property
    def is_sharded(self) -> bool:
        """Whether the model is spread over several processes (FSDP), instead of being whole in each of them."""
        return self.run.parallelism.strategy == "FSDP" and not self.gang.alone


@dataclass(frozen=True)
class Inputs:
    """What an attempt trains on, and from."""

    method: Method
    model: LocalModel
    teacher: LocalModel | None
    """The model to learn from, if there is one."""
    processor: Any
    """The model's tokenizer; of a vision-language model its processor."""
    sequences: SequenceSets
    micro_batches: MicroBatches

    @property
    def has_images(self) -> bool:
        """Whether the model takes images."""
        return reads_images(self.processor)


@dataclass(frozen=True)
class Start:
    """Where an attempt starts: at the first step, or at a checkpoint."""

    claim: Claim
    resumed: Resumed
    last_step: int | None
    """The step of the checkpoint, if the run had stopped early there: only its result is missing.

    RunIsOverError (checkpoint/saving.py) is the other case: repeating the evaluation decides that the run stops.
    """
    evaluates_first: bool
    """Whether the checkpoint's step has yet to be evaluated: the process that saved it ended before."""

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint's local folder."""
        return None if self.resumed.checkpoint is None else self.resumed.checkpoint.path


def prepare(attempt: Attempt) -> Inputs:
    """Fetch the model and the sequences that preflight tokenized, and tokenize the rest, once on each node.

    Raises DiagnosedError.
    """
    run, storage, gang = attempt.run, attempt.storage, attempt.gang
    _refuse_unmeasured_best(run)
    method = method_of(run.method)
    with log_progress("fetching the model"):
        gang.on_each_node(lambda: fetch_model(run.model, storage, attempt.directory / "model"))
    model = _fetched(run.model, attempt.directory / "model")
    teacher = _fetch_teacher(attempt)
    micro_batches = choose_micro_batches(
        run, model.base, gang, method.memory, None if teacher is None else teacher.base
    )
    processor = load_processor(model)
    if reads_images(processor) and attempt.is_sharded:
        raise DiagnosedError(Reason.INVALID_SPEC, NO_SHARDED_VISION)
    with log_progress("fetching the data"):
        gang.on_each_node(lambda: write_sequences(run, storage, processor, attempt.directory / DATA))
    return Inputs(method, model, teacher, processor, load_sequences(attempt.directory / DATA), micro_batches)


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


def _fetch_teacher(attempt: Attempt) -> LocalModel | None:
    source, directory = attempt.run.teacher, attempt.directory / "teacher"
    if source is None:
        return None
    with log_progress("fetching the teacher"):
        attempt.gang.on_each_node(lambda: fetch_model(source, attempt.storage, directory))
    return _fetched(source, directory)


def _fetched(source: ModelSource, directory: Path) -> LocalModel:
    """Where `fetch_model` has put the model, for the processes of the node that did not fetch it."""
    return LocalModel(directory / "base", None if source.adapter_uri is None else directory / "adapter")


def _refuse_unmeasured_best(run: TrainRun) -> None:
    best = run.checkpoints.best
    if best is not None and best.metric == "EvalLoss" and run.dataset.validation is None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "checkpoints.best.metric is EvalLoss, but there is no dataset.validation to measure it on. "
            "Add one (a splitPercent will do), or use TrainLoss.",
        )


def _is_unevaluated(checkpoint: LocalCheckpoint, run: TrainRun) -> bool:
    step = checkpoint.committed.manifest.step
    state = (checkpoint.path / checkpoints.TRAINER_STATE).read_bytes()
    every, last = run.hyperparameters.checkpoint_every_steps, json.loads(state)["max_steps"]
    return step not in checkpoints.evaluated_steps(state) and (step % every == 0 or step >= last)
