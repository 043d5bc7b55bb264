"""Run configurations of the tests, and the training of one in this process."""

from __future__ import annotations

import csv
import io
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from finetune_api.outcome import TrainReport
from finetune_api.run import JobIdentity, ModelSource, PreflightRun, TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.place import place_alone_on_node
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import chat

DEADLINE_SECONDS = 120.0
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


def train_here(run: TrainRun, directory: Path) -> TrainReport:
    """Train in this process, alone."""
    from finetune_trainer.train.train import train

    return train(run, directory, Gang(place_alone_on_node(run.parallelism, {})))


def stop_after_first_checkpoint(storage: Storage, run: TrainRun) -> threading.Thread:
    """Send this process a SIGTERM as soon as the run has a checkpoint."""

    def stop() -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if checkpoints.list_committed(storage, parse_s3(run.output_uri)):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


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
