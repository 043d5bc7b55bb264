"""Which silence is a stall, and whose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_trainer.process.heartbeats import Beat, Phase
from finetune_trainer.supervision.watchdog import ENDED, STOPPED, Limits, Watchdog, allowed, process_state

LIMITS = Limits()


def beat(rank: int = 0, phase: Phase = Phase.TRAINING, step: int = 58, **changes: Any) -> Beat:
    settings: dict[str, Any] = {"pid": 100 + rank, "time": 0.0, "gaps": 40, "slowest": 0.5}
    return Beat(rank=rank, phase=phase, step=step, **settings | changes)


@pytest.mark.parametrize(
    ("last", "seconds"),
    [
        (beat(slowest=0.5), 60),
        (beat(slowest=6.0), 60),
        (beat(slowest=30.0), 300),
        (beat(gaps=5, slowest=0.5), 1800),
        (beat(gaps=6, slowest=0.5), 60),
        (beat(phase=Phase.EVALUATING), 600),
        (beat(phase=Phase.SAVING), 3600),
        (beat(phase=Phase.STARTING, gaps=0), 3600),
    ],
    ids=[
        "fast steps",
        "just as long as at least",
        "slow steps",
        "the first two steps are compiled",
        "three steps are known",
        "evaluation",
        "save",
        "start",
    ],
)
def test_how_long_a_process_may_be_silent(last: Beat, seconds: float) -> None:
    assert allowed(last, LIMITS) == seconds


def test_a_process_that_makes_no_step_is_stalled_after_that_and_a_while() -> None:
    dog = Watchdog(state_of=lambda pid: "S")
    last = beat(rank=3, slowest=10.0)
    assert dog.find_stall([last], 114.9) is None
    found = dog.find_stall([last], 115.0)
    assert found is not None
    assert (found.reason, found.rank, found.step, found.stopped) == (Reason.TRAINING_STALLED, 3, 58, False)
    assert found.retryable
    assert found.message.startswith(
        "Rank 3 made no progress for 115 seconds in step 58 (training; of late it took 10.0 seconds at most)."
    )
    assert found.suggestion is not None
    assert "hyperparameters.maxLength" in found.suggestion


def test_a_stopped_process_is_reported_before_those_that_wait_for_it() -> None:
    """So its diagnosis is there when its end takes the others down."""
    dog = Watchdog(state_of=lambda pid: "T" if pid == 101 else "S")
    gang = [beat(rank=0), beat(rank=1)]
    found = [dog.find_stall(gang, float(second)) for second in range(1, 62)]
    assert found[:-1] == [None] * 60
    assert found[-1] is not None
    assert (found[-1].rank, found[-1].stopped) == (1, True)
    assert "Its process is stopped" in found[-1].message


def test_a_debuggers_short_look_is_no_stall() -> None:
    debugger = {100}
    dog = Watchdog(state_of=lambda pid: "t" if pid in debugger else "S")
    saves = beat(phase=Phase.SAVING)
    assert dog.find_stall([saves], 1000.0) is None
    debugger.clear()
    assert dog.find_stall([saves], 1001.0) is None
    debugger.add(100)
    assert [dog.find_stall([saves], 1002.0 + second) for second in range(60)] == [None] * 60
    assert dog.find_stall([saves], 1062.0) is not None


def test_of_those_who_hang_on_one_node_the_furthest_behind_is_named() -> None:
    dog = Watchdog(state_of=lambda pid: "S")
    found = dog.find_stall([beat(rank=4), beat(rank=5, step=57), beat(rank=6)], 100.0)
    assert found is not None
    assert found.rank == 5


@pytest.mark.parametrize("state", ENDED)
def test_one_that_has_ended_is_not_stalled(state: str) -> None:
    """Of a worker of torchrun's agent, the agent tells how."""
    assert Watchdog(state_of=lambda pid: state).find_stall([beat()], 9999.0) is None


@pytest.mark.parametrize(
    ("beats", "seconds", "in_vain"),
    [
        ([beat(time=99.0)], 14.9, False),
        ([beat(time=99.0)], 15.0, True),
        ([beat(time=110.0)], 24.9, False),
        ([beat(time=110.0)], 25.0, True),
        ([beat(slowest=20.0)], 59.9, False),
        ([beat(slowest=20.0)], 60.0, True),
        ([], 15.0, True),
        ([beat(phase=Phase.STARTING)], 15.0, True),
        ([beat(phase=Phase.SAVING)], 900.0, False),
        ([beat(), beat(rank=1, phase=Phase.SAVING)], 900.0, False),
        ([beat(), beat(rank=1, phase=Phase.EVALUATING)], 900.0, False),
    ],
    ids=[
        "in a step",
        "in a step for too long",
        "in the next step",
        "in the next step for too long",
        "in a slow step",
        "in a slow step for too long",
        "not begun",
        "waits for the gang",
        "saves",
        "one saves",
        "one evaluates",
    ],
)
def test_who_got_sigterm_gets_time_for_a_step_and_for_all_of_a_save(
    beats: list[Beat], seconds: float, in_vain: bool
) -> None:
    assert Watchdog(state_of=lambda pid: "S").is_stuck_stopping(beats, 100.0, 100.0 + seconds) is in_vain


def test_a_stopped_process_is_seen_as_such() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert process_state(process.pid) not in (*STOPPED, *ENDED)
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while process_state(process.pid) not in STOPPED:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(5)
    assert process_state(process.pid) in ENDED
