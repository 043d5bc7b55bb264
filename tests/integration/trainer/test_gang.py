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

import pytest

from e2e.cluster.ports import free_ports
from finetune_api.finetunejob import Parallelism
from finetune_api.manifest import Manifest
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


def wait_for_checkpoint(storage: Storage, run: TrainRun) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not checkpoints.list_committed(storage, parse_s3(run.output_uri)):
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.05)


def test_two_nodes_stop_together_resume_and_learn_what_one_process_learns(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    hyperparameters = {"epochs": 12.0, "checkpoint_every_steps": 20}
    dataset = workplace.dataset(validation=None)
    run = workplace.train_run("two-nodes", hyperparameters, parallelism=Parallelism(nodes=2), dataset=dataset)
    with nodes(run, tmp_path / "first") as started:
        wait_for_checkpoint(storage, run)
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started, tmp_path / "first") == [EXIT_DISRUPTED, EXIT_DISRUPTED]
    stopped = checkpoints.list_committed(storage, parse_s3(run.output_uri))[-1].manifest
    assert 20 <= stopped.step < 120
    assert {f"attempt-0001/rng_state_{rank}.pth" for rank in (0, 1)} < {file.path for file in stopped.files}

    second = run.model_copy(update={"attempt": 2})
    with nodes(second, tmp_path / "second") as started:
        assert exit_codes(started, tmp_path / "second") == [EXIT_SUCCEEDED, EXIT_SUCCEEDED]
    result = find_result(second, storage)
    assert result is not None
    assert result.step == 120

    train_here(workplace.train_run("one-process", hyperparameters, dataset=dataset), tmp_path / "alone")
    together, alone = workplace.results("two-nodes"), workplace.results("one-process")
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    # The batches are the same and dropout is not: close, and not equal.
    for row, expected in list(zip(together, alone, strict=True))[:10]:
        assert float(row["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=0.1)


def test_two_processes_of_one_node_run_under_torchruns_agent(
    workplace: Workplace, storage: Storage, tmp_path: Path
) -> None:
    run = workplace.train_run("agent", {"epochs": 0.5}, parallelism=Parallelism(processes_per_node=2))
    with nodes(run, tmp_path) as started:
        assert exit_codes(started, tmp_path) == [EXIT_SUCCEEDED]
    (checkpoint,) = checkpoints.list_committed(storage, parse_s3(run.output_uri))
    assert checkpoint.manifest.step == 5
    assert {f"attempt-0001/rng_state_{rank}.pth" for rank in (0, 1)} < {file.path for file in checkpoint.manifest.files}
    assert isinstance(checkpoint.manifest, Manifest)


def test_the_end_of_one_node_ends_the_other(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    run = workplace.train_run("killed", {"epochs": 50.0}, parallelism=Parallelism(nodes=2))
    with nodes(run, tmp_path) as started:
        wait_for_checkpoint(storage, run)
        started[1].kill()
        assert exit_codes(started, tmp_path)[0] == EXIT_FAILED
    assert "Another process of the gang ended" in (tmp_path / "node-0.log").read_text()
