"""Starts the processes of one node's share of a training run.

The Indexed Job gives every Pod its node rank (JOB_COMPLETION_INDEX), so ranks are fixed and the rendezvous is
static: rank 0 listens at RENDEZVOUS_HOST. The first process supervises (supervisor.py). With one process a node, its
child trains, in the environment that torchrun would have given it; with more, the child is torchrun's agent
(torch.distributed.launcher), which starts and watches them.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from pathlib import Path

import structlog

from finetune_api.base import STORED
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_FAILED, EXIT_SUCCEEDED, TrainReport
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.distributed.ranks import Ranks, node_rank, ranks_alone_on_node, ranks_under_agent, rendezvous
from finetune_trainer.process import environment, heartbeats
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.imports import gc_paused_for_imports
from finetune_trainer.supervision.supervisor import EXIT_KILLED, end_process, supervise
from finetune_trainer.supervision.termination_messages import conclude, conclude_failure, read_run
from finetune_trainer.supervision.watchdog import Watchdog

_log = structlog.get_logger()

BEATS = "heartbeats"
SHUTDOWN_SECONDS = 24 * 60 * 60  # never before the kubelet's own grace period ends


def train_node(file: Path, watchdog: Watchdog | None = None) -> int:
    """Run this node's share of the training that `file` describes. Returns the exit code."""
    try:
        run = read_run(TrainRun, file)
    except DiagnosedError as error:
        return conclude_failure(error)
    processes = run.parallelism.processes_per_node
    environment.prepare(processes=processes)
    _log.info("starting", job=f"{run.job.namespace}/{run.job.name}", attempt=run.attempt)
    with tempfile.TemporaryDirectory(prefix="finetune-") as directory:
        folder = Path(directory)
        heartbeats.prepare(folder / BEATS, processes)
        return supervise(lambda: _train(run, folder), run=run, beats=folder / BEATS, watchdog=watchdog)


def _train(run: TrainRun, directory: Path) -> int:
    if run.parallelism.processes_per_node == 1:
        return _train_process(run, directory, ranks_alone_on_node(run.parallelism, os.environ))
    return _train_under_agent(run, directory)


def _train_process(run: TrainRun, directory: Path, ranks: Ranks) -> int:
    heartbeats.begin(directory / BEATS, ranks.local_rank, ranks.rank)
    if ranks.world_size > 1:
        os.environ.update(ranks.to_environment())
    if ranks.local_rank > 0:  # only the node's first process logs
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))

    def command() -> TrainReport:
        with gc_paused_for_imports():
            from finetune_trainer.distributed.gang import Gang
            from finetune_trainer.train.train import run_training

        gang = Gang(ranks)
        try:
            report = run_training(run, directory, gang)
        except DisruptedError:
            gang.leave()
            raise
        gang.leave()
        return report

    return conclude(command, ranks.rank, run)


def _train_under_agent(run: TrainRun, directory: Path) -> int:
    """Run every process of this node under torchrun's agent."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    host, port = rendezvous(os.environ)
    config = LaunchConfig(
        min_nodes=run.parallelism.nodes,
        max_nodes=run.parallelism.nodes,
        nproc_per_node=run.parallelism.processes_per_node,
        run_id=f"{run.job.uid}-{run.attempt}",
        rdzv_backend="static",
        rdzv_endpoint=f"{host}:{port}",
        rdzv_configs={"rank": node_rank(os.environ)},
        max_restarts=0,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, _train_worker)(run.model_dump_json(by_alias=True), str(directory))
    except SignalException:
        return EXIT_DISRUPTED
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if EXIT_DISRUPTED in codes:
            return EXIT_DISRUPTED
        return EXIT_KILLED if -signal.SIGKILL in codes else EXIT_FAILED
    return EXIT_SUCCEEDED


def _train_worker(run: str, directory: str) -> None:
    """The entry point of a process that the agent starts, in a fresh interpreter."""
    environment.exit_on_sigterm()
    code = _train_process(
        TrainRun.model_validate_json(run, context=STORED), Path(directory), ranks_under_agent(os.environ)
    )
    if code != EXIT_SUCCEEDED:
        end_process(code)
