"""Several processes that train one model: on two nodes, and two on one node, as Pods would run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.ports import free_ports
from finetune_api.finetunejob import Adapter, Parallelism
from finetune_api.outcome import EXIT_DISRUPTED, EXIT_FAILED, EXIT_SUCCEEDED
from finetune_api.run import TrainRun
from finetune_api.sources import parse_s3
from finetune_trainer import checkpoints
from finetune_trainer.results import find_result
from finetune_trainer.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here

DEADLINE_SECONDS = 240.0
ROOT = Path(__file__).parents[3]


@contextmanager
def nodes(run: TrainRun, directory: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """One process of the command line for each node of the run, each in its own file system as far as it can tell."""
    (port,) = free_ports(1)
    started = []
    for node in range(run.parallelism.nodes):
        scratch = directory / f"node-{node}"
        scratch.mkdir(parents=True)
        (scratch / "run.json").write_text(run.model_dump_json(by_alias=True))
        environment = {
            **os.environ,
            "JOB_COMPLETION_INDEX": str(node),
            "RENDEZVOUS_HOST": "localhost",
            "RENDEZVOUS_PORT": str(port),
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator/src", "trainer-image/src")),
        }
        with (directory / f"node-{node}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "finetune_trainer", "train", str(scratch / "run.json")],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait(10)


def exit_codes(started: list[subprocess.Popen[bytes]], directory: Path) -> list[int]:
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


def test_a_gang_survives_a_killed_node_a_drained_one_and_a_move(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    """Three attempts at one run: and it learns what one process learns that nobody disturbs."""
    settings: dict[str, Any] = {
        "hyperparameters": {"epochs": 16.0, "checkpoint_every_steps": 20, "learning_rate": 2e-3},
        "adapter": Adapter(rank=4, alpha=8, dropout=0.0),  # processes drop different numbers
        "dataset": workplace.dataset(validation=None),
    }
    first = workplace.train_run("gang", parallelism=Parallelism(nodes=2), **settings)
    with nodes(first, tmp_path / "killed") as started:
        killed_at = wait_for_checkpoint(storage, first, after=0)
        started[1].kill()
        assert exit_codes(started, tmp_path / "killed") == [EXIT_FAILED, -signal.SIGKILL]
    assert "Another process of the gang ended" in (tmp_path / "killed" / "node-0.log").read_text()

    second = first.model_copy(update={"attempt": 2})
    with nodes(second, tmp_path / "drained") as started:
        wait_for_checkpoint(storage, second, after=killed_at)
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started, tmp_path / "drained") == [EXIT_DISRUPTED, EXIT_DISRUPTED]
    drained = checkpoints.list_committed(storage, parse_s3(second.output_uri))[-1].manifest
    assert killed_at < drained.step < 160
    assert drained.attempt == 2
    assert {f"attempt-0002/rng_state_{rank}.pth" for rank in (0, 1)} < {file.path for file in drained.files}

    third = first.model_copy(update={"attempt": 3, "parallelism": Parallelism(processes_per_node=2)})
    with nodes(third, tmp_path / "moved") as started:
        assert exit_codes(started, tmp_path / "moved") == [EXIT_SUCCEEDED]
    result = find_result(third, storage)
    assert result is not None
    assert result.step == 160

    train_here(workplace.train_run("nobody-disturbs", **settings), tmp_path / "alone")
    gang, alone = workplace.results("gang"), workplace.results("nobody-disturbs")
    assert [row["step"] for row in gang] == [row["step"] for row in alone]
    for row, expected in zip(gang, alone, strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=0.02, abs=0.02)
