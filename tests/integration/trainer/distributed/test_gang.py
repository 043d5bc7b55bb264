"""Several processes that train one model: on two nodes, and two on one node, as Pods would run them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from e2e.cluster.machine.ports import free_ports
from finetune_api.finetunejob import SFT, Adapter, LoRA, Method, Parallelism, TrainingData, ValidationData
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_FAILED, EXIT_SUCCEEDED
from finetune_api.pod_contracts.run import ModelSource, TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer.checkpoint import checkpoints
from finetune_trainer.checkpoint.results import find_result
from finetune_trainer.model.loading import fetch_model, load_model
from finetune_trainer.process import environment
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.storage import commits
from finetune_trainer.storage.storage import Storage
from finetune_trainer.train.launch import train_node
from tests.integration import forked
from tests.integration.trainer.distributed.forking_agent import fork_workers
from tests.integration.trainer.runs import (
    Workplace,
    hold_at,
    preference,
    question,
    short_samples,
    stopped_after_first_checkpoint,
    train_here,
)

DEADLINE_SECONDS = 240.0
forked.preload("finetune_trainer.train.train", "finetune_trainer.train.launch")


HELD = "HELD_AT_STEP"
"""The variable that names the step at which a process is to `hold_at`."""


@contextmanager
def nodes(
    run: TrainRun, directory: Path, *, forks: bool = False, held: int | None = None
) -> Iterator[list[forked.ForkedCommand]]:
    """What the command line does for each node of the run, each in its own file system as far as it can tell.

    `forks`: torchrun's agent does not start fresh interpreters. `held`: where the last node stands still, so that it
    is not at its end before the test has done what it is about.
    """
    (port,) = free_ports(1)
    started = []
    for node in range(run.parallelism.nodes):
        scratch = directory / f"node-{node}"
        scratch.mkdir(parents=True)
        (scratch / "run.json").write_text(run.model_dump_json(by_alias=True))
        variables = {
            **os.environ,
            "JOB_COMPLETION_INDEX": str(node),
            "RENDEZVOUS_HOST": "localhost",
            "RENDEZVOUS_PORT": str(port),
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),  # of the workers that an agent starts
            **({HELD: str(held)} if held is not None and node == run.parallelism.nodes - 1 else {}),
        }
        log = directory / f"node-{node}.log"
        file = scratch / "run.json"
        command = train_with_forks if forks else train
        started.append(forked.ForkedCommand(command, file, environment=variables, folder=scratch, output=log))
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait(10)


def train(file: Path) -> int:
    """`finetune-trainer train FILE`."""
    environment.exit_on_sigterm()
    if HELD in os.environ:
        hold_at(int(os.environ[HELD]))
    with short_samples():
        return train_node(file)


def train_with_forks(file: Path) -> int:
    fork_workers()
    return train(file)


def exit_codes(started: list[forked.ForkedCommand], directory: Path) -> list[int]:
    codes = [process.wait(DEADLINE_SECONDS) for process in started]
    for log in sorted(directory.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text()}")
    return codes


def wait_for_checkpoint(storage: Storage, run: TrainRun, after: int) -> int:
    """The step of the newest checkpoint, as soon as there is one after the given step."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        committed = checkpoints.list_committed(storage, parse_s3(run.output_uri))
        if committed and committed[-1].manifest.step > after:
            return committed[-1].manifest.step
        time.sleep(0.05)
    raise AssertionError("no checkpoint in time")


def assert_same_losses(workplace: Workplace, output: str, expected: str) -> None:
    """Sums over processes round otherwise than sums over a batch: 2 % is what that may come to over these steps."""
    rows, expected_rows = workplace.results(output), workplace.results(expected)
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, wanted in zip(rows, expected_rows, strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(wanted["train_loss"]), rel=0.02, abs=0.02)


@pytest.mark.timeout(900)  # Five starts of processes that import torch, on a machine that runs other tests too.
def test_a_gang_survives_a_killed_node_a_drained_one_and_a_move(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """Three attempts at one run, replicated, sharded and replicated: it learns what one undisturbed process learns.

    Takes most of a minute: the agent of the last one starts fresh interpreters, which import torch.
    """
    settings: dict[str, Any] = {
        "hyperparameters": {"epochs": 6.0, "checkpoint_every_steps": 10, "learning_rate": 2e-3},
        "adapter": Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.0)),  # processes drop different numbers
        "dataset": workplace.dataset(validation=None),
    }
    first = workplace.train_run("gang", parallelism=Parallelism(nodes=2), **settings)
    with nodes(first, tmp_path / "killed", held=15) as started:
        killed_at = wait_for_checkpoint(storage, first, after=0)
        started[1].kill()
        assert exit_codes(started, tmp_path / "killed") == [EXIT_FAILED, -signal.SIGKILL]
    assert "Another process of the gang ended" in (tmp_path / "killed" / "node-0.log").read_text()

    sharded = Parallelism(nodes=2, strategy="FSDP")
    second = first.model_copy(update={"attempt": 2, "parallelism": sharded})
    with nodes(second, tmp_path / "drained", held=25) as started:
        wait_for_checkpoint(storage, second, after=killed_at)
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started, tmp_path / "drained") == [EXIT_DISRUPTED, EXIT_DISRUPTED]
    drained = checkpoints.list_committed(storage, parse_s3(second.output_uri))[-1].manifest
    assert killed_at < drained.step < 60
    assert drained.attempt == 2
    ranks = [f"{rank:05d}-of-00002.safetensors" for rank in (1, 2)]
    assert {
        *(f"{part}/shard-{rank}" for part in ("model", "optimizer") for rank in ranks),
        "rng/rank-00000.json",
        "rng/rank-00001.json",
    } < {file.path for file in drained.files}

    third = first.model_copy(update={"attempt": 3, "parallelism": Parallelism(processes_per_node=2)})
    with nodes(third, tmp_path / "moved") as started:
        assert exit_codes(started, tmp_path / "moved") == [EXIT_SUCCEEDED]
    result = find_result(third, storage)
    assert result is not None
    assert result.step == 60

    train_here(workplace.train_run("nobody-disturbs", **settings), tmp_path / "alone")
    assert_same_losses(workplace, "gang", "nobody-disturbs")


def test_a_whole_model_goes_on_sharded_over_two_nodes(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    """What one process began, two finish, each with half of the weights; the result is whole."""
    settings: dict[str, Any] = {
        "hyperparameters": {"epochs": 2.0, "checkpoint_every_steps": 5, "learning_rate": 2e-3},
        "adapter": Adapter(type="Full"),
        "dataset": workplace.dataset(validation=None),
    }
    first = workplace.train_run("whole", **settings)
    with stopped_after_first_checkpoint(), pytest.raises(DisruptedError):
        train_here(first, tmp_path / "first")

    second = first.model_copy(update={"attempt": 2, "parallelism": Parallelism(nodes=2, strategy="FSDP")})
    with nodes(second, tmp_path / "sharded") as started:
        assert exit_codes(started, tmp_path / "sharded") == [EXIT_SUCCEEDED, EXIT_SUCCEEDED]
    result = find_result(second, storage)
    assert result is not None
    smooth = train_here(workplace.train_run("whole-alone", **settings), tmp_path / "alone").result
    assert_same_losses(workplace, "whole", "whole-alone")
    ours, theirs = (
        load_model(
            fetch_model(ModelSource(uri=made.uri, digest=made.digest), storage, tmp_path / str(number)), torch.float32
        ).state_dict()
        for number, made in enumerate((result, smooth))
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=0.02) for name in ours)


def test_a_gang_that_gets_sigterm_in_an_evaluation_stops_there(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """One process is told so; none finishes the evaluation, and its step was saved before."""
    lines = [question(number % 100) for number in range(1500)]
    run = workplace.train_run(
        "gang-evaluates",
        {"epochs": 6.0, "checkpoint_every_steps": 5},
        parallelism=Parallelism(nodes=2),
        dataset=workplace.dataset(
            validation=ValidationData(uri=workplace.bucket.put_lines("data/long-valid.jsonl", lines))
        ),
    )
    with nodes(run, tmp_path) as started:
        assert wait_for_checkpoint(storage, run, after=0) == 5
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started, tmp_path) == [EXIT_DISRUPTED, EXIT_DISRUPTED]
    assert "asked to stop in the evaluation of step 5" in (tmp_path / "node-0.log").read_text()
    assert checkpoints.list_committed(storage, parse_s3(run.output_uri))[-1].manifest.step == 5


@pytest.mark.parametrize(
    "method", [Method(sft=SFT(prompt_loss_weight=0.3)), Method(type="DPO")], ids=["loss on the prompt", "DPO"]
)
def test_a_gang_learns_by_each_method_what_one_process_learns(
    workplace: Workplace, tmp_path: Path, method: Method
) -> None:
    training = workplace.training
    if method.type == "DPO":
        training = workplace.bucket.put_lines("data/pairs.jsonl", [preference(number) for number in range(40)])
    settings: dict[str, Any] = {
        "method": method,
        "hyperparameters": {"epochs": 1.0, "learning_rate": 2e-3, "beta": 0.1},
        "adapter": Adapter(lora=LoRA(rank=4, alpha=8, dropout=0.0)),
        "dataset": workplace.dataset(training=TrainingData(uri=training), validation=None),
    }
    gang = workplace.train_run(f"{method.type}-gang", parallelism=Parallelism(nodes=2), **settings)
    with nodes(gang, tmp_path / "gang") as started:
        assert exit_codes(started, tmp_path / "gang") == [EXIT_SUCCEEDED, EXIT_SUCCEEDED]
    train_here(workplace.train_run(f"{method.type}-alone", **settings), tmp_path / "alone")
    assert_same_losses(workplace, f"{method.type}-gang", f"{method.type}-alone")


def test_a_gang_whose_run_another_attempt_has_claimed_ends_as_disrupted(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """A node that was thought lost comes back: none of its processes fails, hangs, or commits any more."""
    zombie = workplace.train_run(
        "fenced",
        {"epochs": 1000.0, "checkpoint_every_steps": 5},
        parallelism=Parallelism(nodes=2),
        dataset=workplace.dataset(validation=None),
    )
    with nodes(zombie, tmp_path) as started:
        wait_for_checkpoint(storage, zombie, after=0)
        commits.claim(storage, parse_s3(zombie.output_uri), attempt=2)
        assert exit_codes(started, tmp_path) == [EXIT_DISRUPTED, EXIT_DISRUPTED]
