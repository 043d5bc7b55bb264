"""Step 1: the model and the data on this node's disk, and how a step is computed on its accelerators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.run import TrainRun
from finetune_trainer.data.encode.chat_rendering import reads_images
from finetune_trainer.data.encode.vision import NO_SHARDED_VISION
from finetune_trainer.data.training_data import SequenceSets, load_sequences, write_sequences
from finetune_trainer.methods.method import Method
from finetune_trainer.methods.registry import method_of
from finetune_trainer.model.loading import LocalModel, fetch_model, load_processor
from finetune_trainer.model.passes import Passes, choose_passes
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.train.attempt import Attempt

DATA = "data"
"""The folder of the tokenized datasets, below the attempt's directory."""


@dataclass(frozen=True)
class Inputs:
    """What an attempt trains on, and from."""

    method: Method
    model: LocalModel
    processor: Any
    """The model's tokenizer; of a vision-language model its processor."""
    sequences: SequenceSets
    passes: Passes

    @property
    def has_images(self) -> bool:
        """Whether the model takes images."""
        return reads_images(self.processor)


def prepare(attempt: Attempt) -> Inputs:
    """Fetch the model and tokenize the data, once on each node. Raises DiagnosedError."""
    run, storage, gang = attempt.run, attempt.storage, attempt.gang
    _refuse_unmeasured_best(run)
    method = method_of(run.method)
    with log_progress("fetching the model"):
        gang.on_each_node(lambda: fetch_model(run.model, storage, attempt.directory / "model"))
    model = _fetched_model(run, attempt.directory / "model")
    passes = choose_passes(run, model.base, gang, method.memory)
    processor = load_processor(model)
    if reads_images(processor) and attempt.is_sharded:
        raise DiagnosedError(Reason.INVALID_SPEC, NO_SHARDED_VISION)
    with log_progress("fetching the data"):
        gang.on_each_node(lambda: write_sequences(run, storage, processor, attempt.directory / DATA))
    return Inputs(method, model, processor, load_sequences(attempt.directory / DATA), passes)


def _fetched_model(run: TrainRun, directory: Path) -> LocalModel:
    """Where `fetch_model` has put the model, for the processes of the node that did not fetch it."""
    return LocalModel(directory / "base", None if run.model.adapter_uri is None else directory / "adapter")


def _refuse_unmeasured_best(run: TrainRun) -> None:
    best = run.checkpoints.best
    if best is not None and best.metric == "EvalLoss" and run.dataset.validation is None:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            "checkpoints.best.metric is EvalLoss, but there is no dataset.validation to measure it on. "
            "Add one (a splitPercent will do), or use TrainLoss.",
        )
