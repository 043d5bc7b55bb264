"""What a save is made of: the files' format, their copy in memory, and what runs beside the training."""

from __future__ import annotations

import inspect
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageReader
from transformers import Trainer, TrainerState

from finetune_api.conditions import Reason
from finetune_api.finetunejob import Parallelism
from finetune_trainer.checkpoint import saving, shards, training_state
from finetune_trainer.checkpoint.saving import BackgroundSaves, Save
from finetune_trainer.checkpoint.shards import ShardWriter
from finetune_trainer.checkpoint.training_state import SnapshotTaker, Training
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node
from finetune_trainer.process.failures import DiagnosedError

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "scalar": torch.tensor(7.0),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "integers": torch.tensor([1, -2], dtype=torch.int64),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
}


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that the files below `folder` hold, put together."""
    stored: Any = HuggingFaceStorageReader(str(folder)).read_metadata()
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in stored.state_dict_metadata.items()
    }
    shards.read_into(folder, tensors)
    return tensors


@pytest.fixture
def alone() -> Gang:
    return Gang(ranks_alone_on_node(Parallelism(), {}))


def training(step: int = 1, dtype: torch.dtype = torch.float32) -> Training:
    """One step of a model of two layers, the first of which is frozen."""
    torch.manual_seed(step)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).to(dtype)
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model[1].parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: 1 / (1 + number))
    for _ in range(step):
        model(torch.ones(1, 4, dtype=dtype)).sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return Training(model, optimizer, scheduler, TrainerState(global_step=step, log_history=[{"loss": 2.0, "step": 1}]))


def write(snapshot: training_state.Snapshot, folder: Path) -> Path:
    for path, content in snapshot.files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_a_shard_is_a_safetensors_file_that_says_where_its_parts_lie(alone: Gang, tmp_path: Path) -> None:
    writer = ShardWriter(alone, TENSORS)
    file = tmp_path / writer.name
    file.write_bytes(writer.copy(TENSORS))
    assert writer.name == "shard-00001-of-00001.safetensors"
    for read in (load_file(file), read_whole(tmp_path)):
        assert read.keys() == TENSORS.keys()
        assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
        assert all(read[name].dtype is TENSORS[name].dtype for name in TENSORS)


def test_a_checkpoint_in_half_precision_is_read_into_what_is_kept_in_float32(alone: Gang, tmp_path: Path) -> None:
    """As older releases wrote them of QLoRA."""
    half, full = training(2, torch.bfloat16), training(1)
    write(SnapshotTaker(alone).take(half), tmp_path)
    training_state.restore_model(tmp_path, full.model)
    training_state.restore_optimizer(tmp_path, full)
    for weight, stored in zip(full.model[1].parameters(), half.model[1].parameters(), strict=True):
        moments, expected = full.optimizer.state[weight], half.optimizer.state[stored]
        for name in ("exp_avg", "exp_avg_sq"):
            assert moments[name].dtype is torch.float32
            assert torch.equal(moments[name], expected[name].float())
        assert weight.dtype is torch.float32
        assert torch.equal(weight, stored.float())


def test_every_save_goes_into_the_same_memory(alone: Gang) -> None:
    tensors = {"a": torch.zeros(1000)}
    writer = ShardWriter(alone, tensors)
    first = writer.copy(tensors)
    tensors["a"] += 1
    before = bytes(first)
    second = writer.copy(tensors)
    assert bytes(second) == bytes(first) != before


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "can't be pinned"])
def test_a_shard_is_whole_whether_or_not_its_memory_can_be_pinned(
    alone: Gang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    """As on a machine with GPUs, where the limit for locked memory may be small. The thread works on the process's."""
    from torch.cuda import _pin_memory_utils

    devices: list[int] = []

    def pin(address: int, size: int) -> None:
        if not pinned:
            raise RuntimeError("Registering memory failed with cudaError: 2.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(_pin_memory_utils, "pin_memory", pin)
    writer = ShardWriter(alone, TENSORS)
    (tmp_path / writer.name).write_bytes(writer.copy(TENSORS))
    assert load_file(tmp_path / writer.name).keys() == TENSORS.keys()
    assert devices == [3]


def test_what_fails_beside_the_training_fails_the_save(alone: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a file without a header under a valid digest."""

    def fail(*_: object) -> None:
        raise MemoryError("no memory for the pages")

    monkeypatch.setattr(shards, "_lay_out", fail)
    writer = ShardWriter(alone, TENSORS)
    for _ in range(2):
        with pytest.raises(MemoryError, match="no memory for the pages"):
            writer.copy(TENSORS)


def test_a_checkpoint_of_another_model_is_reported_as_one(alone: Gang, tmp_path: Path) -> None:
    """DCP's own exception is no Exception: it would pass every handler and end the process without a word."""
    writer = ShardWriter(alone, TENSORS)
    (tmp_path / writer.name).write_bytes(writer.copy(TENSORS))
    for others in ({"other": torch.zeros(3)}, {"matrix": torch.zeros(5, 5)}):
        with pytest.raises(DiagnosedError) as refused:
            shards.read_into(tmp_path, others)
        assert (refused.value.failure.reason, refused.value.failure.retryable) == (Reason.CHECKPOINT_CORRUPT, False)


@pytest.mark.parametrize("spoil", [lambda file: b"\0" * len(file), lambda file: file[:40], lambda file: b"{}" * 40])
def test_a_shard_that_can_not_be_read_is_known_before_it_is_loaded(
    alone: Gang, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    writer = ShardWriter(alone, TENSORS)
    file = tmp_path / writer.name
    file.write_bytes(writer.copy(TENSORS))
    shards.refuse_unreadable(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    with pytest.raises(ValueError, match=f"{writer.name} can't be read"):
        shards.refuse_unreadable(tmp_path)
    file.unlink()
    (tmp_path / "shard-00001-of-00002.safetensors").write_bytes(whole)
    with pytest.raises(ValueError, match="has 1 shards of 2"):
        shards.refuse_unreadable(tmp_path)


def test_a_training_is_restored_with_its_optimizer_schedule_and_random_numbers(alone: Gang, tmp_path: Path) -> None:
    saved = training(step=3)
    folder = write(SnapshotTaker(alone).take(saved), tmp_path)
    expected = (random.random(), np.random.rand(), torch.rand(3))
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "model/shard-00001-of-00001.safetensors",
        "optimizer/shard-00001-of-00001.safetensors",
        "rng/rank-00000.json",
        "schedule.json",
        "trainer_state.json",
    }
    assert set(load_file(folder / "model/shard-00001-of-00001.safetensors")) == {"1.weight", "1.bias"}

    restored = training(step=0)
    training_state.restore_model(folder, restored.model)
    training_state.restore_optimizer(folder, restored)
    training_state.restore_random_states(folder, rank=0)
    assert all(
        torch.equal(got, wanted)
        for got, wanted in zip(restored.model[1].parameters(), saved.model[1].parameters(), strict=True)
    )
    assert_same(restored.optimizer.state_dict(), saved.optimizer.state_dict())
    assert restored.scheduler.get_last_lr() == saved.scheduler.get_last_lr()
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(3), expected[2])
    assert TrainerState.load_from_json(str(folder / "trainer_state.json")) == saved.state


def assert_same(got: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for key in wanted:
            assert_same(got[key], wanted[key])
    elif isinstance(wanted, torch.Tensor):
        assert torch.equal(got, wanted)
    else:
        assert got == wanted


def test_a_process_that_was_not_there_before_keeps_its_own_random_numbers(alone: Gang, tmp_path: Path) -> None:
    write(SnapshotTaker(alone).take(training()), tmp_path)
    torch.manual_seed(5)
    training_state.restore_random_states(tmp_path, rank=1)
    assert torch.equal(torch.rand(3), torch.manual_seed(5) and torch.rand(3))


def test_no_file_of_a_checkpoint_is_a_pickle(alone: Gang) -> None:
    for path, content in SnapshotTaker(alone).take(training()).files().items():
        if path.endswith(".json"):
            json.loads(bytes(content))
        else:
            assert path.endswith(".safetensors")
            length = int.from_bytes(content[:8], "little")
            assert "__metadata__" in json.loads(bytes(content[8 : 8 + length]))


def test_training_goes_on_while_a_save_is_stored_and_does_not_change_it(alone: Gang, tmp_path: Path) -> None:
    release = threading.Event()

    def store(save: Save) -> None:
        assert release.wait(30)
        write(save.snapshot, tmp_path)

    saves = BackgroundSaves(SnapshotTaker(alone), store)
    under_way = training(step=1)
    weight = under_way.model[1].weight
    expected = weight.detach().clone()
    saves.save(under_way)
    with torch.no_grad():
        weight += 1.0
    under_way.state.log_history.append({"loss": 1.0, "step": 2})
    release.set()
    saves.finish()
    assert torch.equal(read_whole(tmp_path / "model")["1.weight"], expected)
    assert len(TrainerState.load_from_json(str(tmp_path / "trainer_state.json")).log_history) == 1


def test_a_save_that_outlives_the_interval_makes_training_wait_and_is_not_stacked(
    alone: Gang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save ends when somebody waits for it, seven seconds later by the clock of this test."""
    stored: list[Save] = []
    under_way, now = 0, 0.0
    waited_for = threading.Semaphore(0)

    def wait_for_save(*_: object) -> None:
        nonlocal now
        now += 7
        waited_for.release()

    def store(save: Save) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        assert waited_for.acquire(timeout=30)
        under_way -= 1
        stored.append(save)

    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(saving.heartbeats, "beat", wait_for_save)  # what training says before it waits
    saves = BackgroundSaves(SnapshotTaker(alone), store)
    saves.save(training(step=1))
    saves.save(training(step=2))
    saves.finish()
    assert [save.step for save in stored] == [1, 2]
    assert [(save.waited_seconds, save.stalled_seconds) for save in stored] == [(0, 0), (7, 7)]
    assert [save.seconds for save in stored] == [14, 14], "the second one began when it began to wait"


@pytest.mark.parametrize("surface", ["finish", "save"])
def test_a_failed_save_is_reported_once_and_not_lost(alone: Gang, surface: str) -> None:
    def refuse(save: Save) -> None:
        raise DiagnosedError(Reason.STORAGE_DENIED, "no")

    saves = BackgroundSaves(SnapshotTaker(alone), refuse)
    saves.save(training())
    tell: Callable[[], None] = saves.finish if surface == "finish" else lambda: saves.save(training())
    with pytest.raises(DiagnosedError, match="no"):
        tell()
    assert not saves.failed
    saves.finish()


def test_a_training_that_failed_lets_the_save_under_way_end(alone: Gang) -> None:
    stored: list[int] = []

    def store(save: Save) -> None:
        threading.Event().wait(0.1)
        stored.append(save.step)

    saves = BackgroundSaves(SnapshotTaker(alone), store)
    saves.save(training(step=1))
    saves.abandon()
    assert stored == [1]


SEAMS = {
    "_save_checkpoint": ["self", "model", "trial"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_load_rng_state": ["self", "checkpoint"],
    "_track_num_input_tokens": ["self", "inputs"],
}


@pytest.mark.parametrize(("method", "arguments"), SEAMS.items(), ids=SEAMS)
def test_the_trainer_still_has_the_methods_that_are_overridden(method: str, arguments: list[str]) -> None:
    """When this fails, transformers has moved a seam: read its Trainer again before checkpoint/saving.py is changed,
    or methods/pass_metrics.py."""
    assert list(inspect.signature(getattr(Trainer, method)).parameters) == arguments
    source = "".join(inspect.getsource(getattr(Trainer, caller)) for caller in CALLERS)
    assert f"self.{method}(" in source


CALLERS = ("train", "_prepare_for_training", "_run_epoch", "_maybe_log_save_evaluate")


def test_a_model_that_is_sharded_already_is_left_as_it_is_by_the_trainer() -> None:
    """sharding.py sets what this property reads, and the Trainer then wraps nothing."""
    from transformers import PreTrainedModel

    marked = SimpleNamespace(_is_distributed_loading_by_transformers=True)
    assert PreTrainedModel.is_distributed_loading_by_transformers.fget(marked) is True
    assert "is_distributed_loading_by_transformers" in inspect.getsource(Trainer._prepare_for_training)
