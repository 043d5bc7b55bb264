"""Runs a command under the supervisor, as `finetune-trainer train` does, with short limits.

The termination message goes to FOLDER/termination-log, the processes' beats to FOLDER/heartbeats. The command
`train_node` is the real one, and trains by FOLDER/run.json.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from finetune_api.finetunejob import Parallelism
from finetune_trainer.distributed.gang import Gang
from finetune_trainer.distributed.ranks import ranks_alone_on_node
from finetune_trainer.process import environment, heartbeats
from finetune_trainer.process.failures import DisruptedError
from finetune_trainer.process.heartbeats import Phase
from finetune_trainer.supervision import termination_messages
from finetune_trainer.supervision.supervisor import supervise
from finetune_trainer.supervision.termination_messages import conclude
from finetune_trainer.supervision.watchdog import Limits, Watchdog
from finetune_trainer.train.launch import train_node
from tests.integration.trainer.distributed.forking_agent import fork_workers

LIMITS = Limits(training=1.0, stopped=1.0, waiting=5.0, stopping=1.0)
STEP_SECONDS = 0.02
STEPS_OF_A_SHORT_RUN = 20


def steps(beats: Path, slot: int = 0, rank: int = 0, last: int = 10**9) -> None:
    """Train until the last step, or a SIGTERM: then a save follows that takes longer than a step may."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    heartbeats.begin(beats, slot, rank)
    for step in range(1, last):
        heartbeats.beat(Phase.TRAINING, step)
        time.sleep(STEP_SECONDS)
        if step == 50:
            print(f"step {step}", flush=True)
        if told.is_set():
            heartbeats.beat(Phase.SAVING, step)
            time.sleep(2 * LIMITS.stopping)
            print(f"saved step {step}", flush=True)
            raise DisruptedError


def succeed(beats: Path) -> int:
    return conclude(lambda: steps(beats, last=STEPS_OF_A_SHORT_RUN))


def train(beats: Path) -> int:
    return conclude(lambda: steps(beats))


def fail(beats: Path) -> int:
    def command() -> None:
        print("step 7 of 20", flush=True)
        raise ValueError("no such column")

    return conclude(command, rank=3)


def crash(beats: Path) -> int:
    print("about to crash", flush=True)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def leave_without_a_word(beats: Path) -> int:
    print("ImportError: libcudart.so.13", file=sys.stderr, flush=True)
    os._exit(7)


def deadlock(beats: Path) -> int:
    """Some steps, and then a wait that no signal ends."""
    steps(beats, rank=2, last=STEPS_OF_A_SHORT_RUN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("waiting for ever", flush=True)
    heartbeats.beat(Phase.TRAINING, STEPS_OF_A_SHORT_RUN)
    threading.Event().wait()
    return 0


def two_workers(beats: Path) -> int:
    """Two processes on one node, as torchrun's agent starts them."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=steps, args=(beats, number, 4 + number)) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 0


def gang(beats: Path) -> int:
    """One of two nodes, with one process each, that wait for each other in every step."""
    environment.prepare()
    ranks = ranks_alone_on_node(Parallelism(nodes=2), os.environ)
    heartbeats.begin(beats, 0, ranks.rank)

    def command() -> None:
        gang = Gang(ranks)
        for step in range(1, 10**9):
            heartbeats.beat(Phase.TRAINING, step)
            gang.gather(lambda: None)
            time.sleep(STEP_SECONDS)

    return conclude(command, ranks.rank)


COMMANDS: dict[str, Callable[[Path], int]] = {
    command.__name__: command
    for command in (succeed, train, fail, crash, leave_without_a_word, deadlock, two_workers, gang)
}


def run(name: str, folder: Path) -> int:
    """The exit code of the command of that name."""
    termination_messages.TERMINATION_MESSAGE_PATH = str(folder / "termination-log")
    environment.exit_on_sigterm()
    if name == "train_node":
        fork_workers()
        return train_node(folder / "run.json", Watchdog(LIMITS))
    beats = folder / "heartbeats"
    heartbeats.prepare(beats, processes=2)
    command = COMMANDS[name]
    return supervise(lambda: command(beats), beats=beats, watchdog=Watchdog(LIMITS))
