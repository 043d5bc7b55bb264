"""How the ends of real processes are told: killed, crashed, stopped, deadlocked, told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED, EXIT_FAILED, EXIT_SUCCEEDED
from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Phase
from tests.integration.trainer.supervision.supervised import LIMITS, STEPS_OF_A_SHORT_RUN
from tests.integration.trainer.supervision.supervisors import Supervised, is_gone, supervised, wait_for


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Supervised]]:
    with ExitStack() as stack:
        yield lambda command: stack.enter_context(supervised(command, tmp_path))


def test_a_command_that_succeeds_is_just_passed_on(start: Callable[[str], Supervised]) -> None:
    running = start("succeed")
    assert running.end() == (EXIT_SUCCEEDED, "")
    assert running.message == ""
    (beat,) = heartbeats.read(running.folder / "heartbeats")
    assert (beat.phase, beat.step) == (Phase.TRAINING, STEPS_OF_A_SHORT_RUN - 1)


def test_a_failure_that_the_command_tells_gets_its_log(start: Callable[[str], Supervised]) -> None:
    running = start("fail")
    code, output = running.end()
    assert code == EXIT_FAILED
    assert "ValueError: no such column" in output
    told = running.told()
    assert (told.reason, told.rank) == (Reason.FAILED, 3)
    assert told.log is not None
    assert told.log.startswith("step 7 of 20")


@pytest.mark.parametrize(
    ("command", "how", "log"),
    [
        ("crash", "crashed with SIGSEGV", "about to crash"),
        ("leave_without_a_word", "ended with exit code 7", "ImportError: libcudart.so.13"),
    ],
)
def test_a_pod_that_ends_without_a_report_is_diagnosed_with_its_log(
    start: Callable[[str], Supervised], command: str, how: str, log: str
) -> None:
    running = start(command)
    assert running.end()[0] == EXIT_FAILED
    told = running.told()
    assert how in told.message
    assert (told.retryable, told.log) == (True, log)


def test_a_process_that_is_killed_from_outside_is_a_disruption(start: Callable[[str], Supervised]) -> None:
    running = start("train")
    (beat,) = running.beats()
    os.kill(beat.pid, signal.SIGKILL)
    code, output = running.end()
    assert code == EXIT_DISRUPTED
    assert "killed from outside" in output
    assert running.message == ""


def test_a_process_that_gets_sigterm_gets_the_time_for_its_save(start: Callable[[str], Supervised]) -> None:
    running = start("train")
    running.beats()
    running.process.send_signal(signal.SIGTERM)
    code, output = running.end()
    assert code == EXIT_DISRUPTED
    assert "saved step" in output
    assert running.message == ""


def test_a_stopped_process_is_killed_and_named(start: Callable[[str], Supervised]) -> None:
    running = start("train")
    (beat,) = running.beats(step=60)
    os.kill(beat.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    assert running.end()[0] == EXIT_FAILED
    assert LIMITS.stopped <= time.monotonic() - stopped < LIMITS.training + LIMITS.waiting + 2
    told = running.told()
    assert (told.reason, told.rank, told.stopped, told.retryable) == (Reason.TRAINING_STALLED, 0, True, True)
    assert told.step is not None
    assert told.step >= 60
    assert told.log == "step 50"
    assert is_gone(beat.pid)


def test_a_deadlocked_process_is_killed_and_named(start: Callable[[str], Supervised]) -> None:
    running = start("deadlock")
    (beat,) = running.beats()
    assert running.end()[0] == EXIT_FAILED
    told = running.told()
    assert (told.reason, told.rank, told.stopped) == (Reason.TRAINING_STALLED, 2, False)
    assert told.step == STEPS_OF_A_SHORT_RUN
    assert told.log == "waiting for ever"
    assert is_gone(beat.pid)


def test_a_stopping_process_that_waits_for_a_lost_peer_is_killed(start: Callable[[str], Supervised]) -> None:
    running = start("deadlock")
    (beat,) = running.beats(step=STEPS_OF_A_SHORT_RUN)
    running.process.send_signal(signal.SIGTERM)
    code, output = running.end()
    assert code == EXIT_DISRUPTED
    assert "another process of the gang is gone" in output
    assert running.message == ""
    assert is_gone(beat.pid)


def test_of_several_processes_on_a_node_the_stopped_one_is_named_and_all_end(
    start: Callable[[str], Supervised],
) -> None:
    running = start("two_workers")
    beats = running.beats(number=2)
    (stopped,) = (beat.pid for beat in beats if beat.rank == 5)
    os.kill(stopped, signal.SIGSTOP)
    assert running.end()[0] == EXIT_FAILED
    told = running.told()
    assert (told.reason, told.rank, told.stopped) == (Reason.TRAINING_STALLED, 5, True)
    wait_for(lambda: all(is_gone(beat.pid) for beat in beats))


def test_nothing_is_left_when_the_supervisor_itself_is_killed(start: Callable[[str], Supervised]) -> None:
    running = start("train")
    (beat,) = running.beats()
    running.process.kill()
    wait_for(lambda: is_gone(beat.pid))
