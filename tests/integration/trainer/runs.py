"""Run configurations of the tests, and the training of one in this process."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetunejob import (
    Adapter,
    Checkpoints,
    Dataset,
    LoRA,
    Method,
    Parallelism,
    ResolvedHyperparameters,
    TrainingData,
    ValidationData,
)
from finetune_api.pod_contracts.outcome import TrainReport
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, PreflightRun, TrainRun
from finetune_trainer.checkpoint.saving import CheckpointWriter, Save
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node
from finetune_trainer.report.progress import ProgressReceiver
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import chat

SAMPLE_TOKENS = 8
"""Half of a short training would be samples otherwise."""
JOB = JobIdentity(namespace="team-a", name="adder", uid="7f0e", run_id="1")


def question(number: int) -> dict[str, Any]:
    return chat(f"What is {number} plus {number % 7}?", str(number + number % 7))


def preference(number: int) -> dict[str, Any]:
    """A pair in TRL's form: the sum is better than the number itself."""
    asked, right = question(number)["messages"]
    wrong = {"role": "assistant", "content": f"{number}."}
    return {"prompt": [asked], "chosen": [right], "rejected": [wrong]}


@dataclass(frozen=True)
class Workplace:
    """What lies in the bucket before a run."""

    bucket: Bucket
    model: str
    training: str
    validation: str

    def preflight_run(self, output: str, **changes: Any) -> PreflightRun:
        settings: dict[str, Any] = {
            "job": JOB,
            "storage": self.bucket.storage,
            "output_uri": self.bucket.uri(output),
            "model": ModelSource(uri=self.model),
            "method": Method(),
            "dataset": self.dataset(),
            "seed": 17,
        }
        return PreflightRun(**settings | changes)

    def train_run(self, output: str, hyperparameters: dict[str, Any] | None = None, **changes: Any) -> TrainRun:
        """Twenty steps of four examples with LoRA, a checkpoint every ten."""
        settings: dict[str, Any] = {
            "job": JOB,
            "attempt": 1,
            "storage": self.bucket.storage,
            "output_uri": self.bucket.uri(output),
            "model": ModelSource(uri=self.model),
            "method": Method(),
            "adapter": Adapter(lora=LoRA(rank=4, alpha=8)),
            "dataset": self.dataset(),
            "hyperparameters": _hyperparameters(**hyperparameters or {}),
            "parallelism": Parallelism(),
            "checkpoints": Checkpoints(),
        }
        return TrainRun(**settings | changes)

    def dataset(self, **changes: Any) -> Dataset:
        settings: dict[str, Any] = {
            "training": TrainingData(uri=self.training),
            "validation": ValidationData(uri=self.validation),
        }
        return Dataset(**settings | changes)

    def results(self, output: str) -> list[dict[str, str]]:
        """The rows of results.csv."""
        text = self.bucket.read(self.bucket.uri(f"{output}/results.csv")).decode()
        return list(csv.DictReader(io.StringIO(text)))


def train_here(run: TrainRun, directory: Path, screen: ProgressReceiver | None = None) -> TrainReport:
    """Train in this process, alone. `screen` receives the progress."""
    from finetune_trainer.train.train import run_training

    with short_samples():
        return run_training(run, directory, Gang(ranks_alone_on_node(run.parallelism, {})), screen)


@contextmanager
def short_samples() -> Iterator[None]:
    """The report's samples, at which a model that was trained for twenty steps never stops, are cut."""
    from finetune_trainer.methods import samples

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "SAMPLE_TOKENS", SAMPLE_TOKENS)
        yield


@contextmanager
def stopped_after_first_checkpoint() -> Iterator[None]:
    """This process gets a SIGTERM as soon as what it trains has a checkpoint."""
    store = CheckpointWriter.store

    def store_and_stop(writer: CheckpointWriter, save: Save) -> None:
        store(writer, save)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointWriter, "store", store_and_stop)
        yield


def hold_at(step: int) -> None:
    """Let all training of this process stand still at the end of this step, until it is killed or told to stop."""
    from finetune_trainer.train.callbacks import StopOnSigterm

    on_step_end = StopOnSigterm.on_step_end

    def hold(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        while state.global_step >= step and not self._asked:
            time.sleep(0.05)
        on_step_end(self, args, state, control, **kwargs)

    StopOnSigterm.on_step_end = hold  # type: ignore[method-assign]


def _hyperparameters(**changes: Any) -> ResolvedHyperparameters:
    settings: dict[str, Any] = {
        "epochs": 2.0,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "schedule": "Cosine",
        "warmup_percent": 10.0,
        "weight_decay": 0.0,
        "max_length": 96,
        "packing": False,
        "seed": 17,
        "total_steps": 20,
        "checkpoint_every_steps": 10,
    }
    return ResolvedHyperparameters(**settings | changes)
