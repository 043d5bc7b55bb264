"""The complete state of a training, from which it resumes bit for bit, as a folder of safetensors and JSON files.

    model/shard-00001-of-00002.safetensors       what is trained of the model (shards.py)
    optimizer/shard-00001-of-00002.safetensors   the optimizer's moments, by the names of their weights
    rng/rank-00000.json                          the states of the random generators, of each process
    schedule.json                                the optimizer's settings and the learning rate's schedule
    trainer_state.json                           the Trainer's: step (so the place in the data), epoch, log

Only the random states depend on the number of processes: a process that did not exist before starts with its own seed.
Nothing depends on how the weights were sharded. There is no pickle.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from finetune_trainer.checkpoint import shards
from finetune_trainer.checkpoint.shards import ShardWriter
from finetune_trainer.distributed.gang import Gang

MODEL = "model"
OPTIMIZER = "optimizer"
RNG = "rng"
SCHEDULE = "schedule.json"
TRAINER_STATE = "trainer_state.json"  # transformers.trainer.TRAINER_STATE_NAME


@dataclass(frozen=True)
class Training:
    """A training in progress: its torch model (not wrapped), optimizer and scheduler, and the Trainer's state."""

    model: Any
    optimizer: Any
    scheduler: Any
    state: Any

    @classmethod
    def of(cls, model: Any, optimizer: Any, scheduler: Any, state: Any) -> Training:
        """From what a Trainer has: its optimizer may be wrapped by accelerate's."""
        return cls(model, getattr(optimizer, "optimizer", optimizer), scheduler, state)


@dataclass(frozen=True)
class Snapshot:
    """One process's share of the state at one step, in host memory. Its tensors are valid until the next snapshot."""

    tensors: dict[str, memoryview]
    documents: dict[str, bytes]
    trainer_state: dict[str, Any]

    def files(self) -> dict[str, memoryview]:
        """This process's files of the checkpoint, by path."""
        documents = dict(self.documents)
        if SCHEDULE in documents:  # of rank 0, which writes what all have
            documents[TRAINER_STATE] = _to_json(self.trainer_state)
        return self.tensors | {path: memoryview(document) for path, document in documents.items()}


class SnapshotTaker:
    """Takes snapshots, all into the same memory. All processes of the gang call every method."""

    def __init__(self, gang: Gang) -> None:
        self._gang = gang
        self._model: ShardWriter | None = None
        self._optimizer: ShardWriter | None = None

    def prepare(self, training: Training) -> None:
        """Agree on which process writes what, and start to allocate: after the first step, which creates the
        moments."""
        if self._model is None:
            optimizer = get_optimizer_state_dict(training.model, training.optimizer)
            self._model = ShardWriter(self._gang, model_tensors(training.model))
            self._optimizer = ShardWriter(self._gang, optimizer_tensors(optimizer))

    def take(self, training: Training) -> Snapshot:
        """Copy this process's share of the state."""
        self.prepare(training)
        assert self._model is not None and self._optimizer is not None
        weights = model_tensors(training.model)
        optimizer = get_optimizer_state_dict(training.model, training.optimizer)
        moments = optimizer_tensors(optimizer)
        documents = {_rng_path(self._gang.ranks.rank): _to_json(random_states())}
        if self._gang.leads:
            documents[SCHEDULE] = _to_json(
                {"optimizer": optimizer["param_groups"], "scheduler": training.scheduler.state_dict()}
            )
        return Snapshot(
            tensors={
                f"{MODEL}/{self._model.name}": self._model.copy(weights),
                f"{OPTIMIZER}/{self._optimizer.name}": self._optimizer.copy(moments),
            },
            documents=documents,
            trainer_state=_copy(training.state),
        )


def restore_model(checkpoint: Path, model: Any) -> None:
    """Load the trainable weights of a checkpoint into the model, in place."""
    shards.read_into(checkpoint / MODEL, model_tensors(model))


def restore_optimizer(checkpoint: Path, training: Training) -> None:
    """Load the optimizer's moments and settings, and the learning rate schedule."""
    optimizer = get_optimizer_state_dict(training.model, training.optimizer)
    shards.read_into(checkpoint / OPTIMIZER, optimizer_tensors(optimizer))
    schedule = json.loads((checkpoint / SCHEDULE).read_bytes())
    for group, stored in zip(training.optimizer.param_groups, schedule["optimizer"], strict=True):
        for name, value in stored.items():
            if name != "params":
                group[name] = tuple(value) if isinstance(value, list) else value
    training.scheduler.load_state_dict(schedule["scheduler"])


def restore_random_states(checkpoint: Path, rank: int) -> None:
    """Restore the random generators of the process of this rank, if the checkpoint has such a process."""
    file = checkpoint / _rng_path(rank)
    if file.exists():
        set_random_states(json.loads(file.read_bytes()))


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set the random generators to what `random_states` answered."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_from_text(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_text(states["cuda"]))


def random_states() -> dict[str, Any]:
    """The states of the random generators of Python, numpy and torch, as JSON can hold them."""
    kind, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": _to_text(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        states["cuda"] = _to_text(torch.cuda.get_rng_state())
    return states


def is_of_model(path: str) -> bool:
    """Whether a file of a checkpoint is of the model."""
    return path.startswith(f"{MODEL}/")


def model_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The trainable weights by name; a weight that two modules share appears once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def optimizer_tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of DCP's `get_optimizer_state_dict`, by `<weight>.<moment>`."""
    return {f"{weight}.{name}": value for weight, kept in state["state"].items() for name, value in kept.items()}


def _rng_path(rank: int) -> str:
    return f"{RNG}/rank-{rank:05d}.json"


def _copy(state: Any) -> dict[str, Any]:
    """The fields of a TrainerState. Training appends to the log, but what is in it stays: it may be long."""
    return {**vars(state), "log_history": list(state.log_history)}


def _to_json(document: Any) -> bytes:
    return (json.dumps(document) + "\n").encode()


def _to_text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _from_text(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
