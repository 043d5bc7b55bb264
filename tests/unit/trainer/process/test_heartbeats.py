"""What a process's beats tell its supervisor."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.process import heartbeats
from finetune_trainer.process.heartbeats import Beat, Phase, Writer


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "heartbeats"
    heartbeats.prepare(found, processes=2)
    yield found
    heartbeats._writer = None


def test_nothing_is_reported_of_a_process_that_has_not_begun(file: Path) -> None:
    assert heartbeats.read(file) == []


def test_where_nobody_watches_a_beat_does_nothing() -> None:
    heartbeats.beat(Phase.TRAINING, 1)


def test_each_process_has_its_own_slot(file: Path) -> None:
    moment = iter((1.0, 2.0, 3.0))
    first, second = (Writer(file, slot, rank, clock=lambda: next(moment)) for slot, rank in ((0, 6), (1, 7)))
    first.beat(Phase.STARTING, 0)
    second.beat(Phase.SAVING, 20)
    first.beat(Phase.TRAINING, 1)
    assert heartbeats.read(file) == [
        Beat(os.getpid(), 6, Phase.TRAINING, 1, 3.0),
        Beat(os.getpid(), 7, Phase.SAVING, 20, 2.0),
    ]


def test_the_silences_of_training_are_measured_and_those_of_saves_and_evaluations_are_not(file: Path) -> None:
    now = 0.0
    writer = Writer(file, 0, 0, clock=lambda: now)
    story = [
        (0, Phase.STARTING, 0),
        (100, Phase.TRAINING, 1),  # the start is not of interest
        (103, Phase.TRAINING, 1),  # the step: 3 seconds
        (104, Phase.TRAINING, 2),  # its data: 1 second
        (106, Phase.EVALUATING, 2),  # the step: 2 seconds
        (200, Phase.SAVING, 2),
        (300, Phase.TRAINING, 3),
    ]
    for at, phase, step in story:
        now = float(at)
        writer.beat(phase, step)
    (beat,) = heartbeats.read(file)
    assert (beat.gaps, beat.slowest) == (3, 3.0)


def test_what_was_slow_long_ago_is_forgotten(file: Path) -> None:
    now = 0.0
    writer = Writer(file, 0, 0, clock=lambda: now)
    for number in range(heartbeats.GAPS_REMEMBERED + 2):
        writer.beat(Phase.TRAINING, number)
        now += 50.0 if number == 0 else 0.5
    assert heartbeats.read(file)[0].slowest == 0.5


def test_a_beat_costs_a_training_nothing(file: Path) -> None:
    """Two beats a step, of a millisecond at the very least: 20 microseconds would be 4 percent of that."""
    heartbeats.begin(file, 0, 0)
    began = time.thread_time()  # what others have the processor for meanwhile costs them
    for step in range(1000):
        heartbeats.beat(Phase.TRAINING, step)
    assert (time.thread_time() - began) / 1000 < 20e-6


def test_a_beat_that_is_read_while_it_is_written_is_the_last_one_or_the_new_one(file: Path) -> None:
    """Never a slot of zeros, whose time is the boot's: a training that goes on would be called stalled."""
    writer = multiprocessing.get_context("fork").Process(target=_beat_without_a_pause, args=(file,), daemon=True)
    writer.start()
    try:
        deadline = time.monotonic() + 60
        while not heartbeats.read(file) and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = [heartbeats.read(file) for _ in range(50_000)]
    finally:
        writer.kill()
        writer.join()
    assert {tuple((beat.rank, beat.step, beat.time) for beat in beats) for beats in seen} == {((6, 1, 1.0),)}


def _beat_without_a_pause(file: Path) -> None:
    writer = Writer(file, 0, 6, clock=lambda: 1.0)
    while True:
        writer.beat(Phase.TRAINING, 1)
