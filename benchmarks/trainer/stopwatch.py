"""Time, CPU and memory of the steps after the warm-up. In both contenders, as a callback of the Trainer."""

from __future__ import annotations

import itertools
import resource
import statistics
import time
from typing import Any

import torch
from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """`figures` after the training; CPU seconds are those of all threads of the process.

    The time of each step is the accelerator's own where there is one, so that nothing waits for it within the steps.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._began = (0.0, 0.0)
        self._marks: list[Any] = []
        self.steps = 0
        self.figures: dict[str, float] = {}

    @property
    def running(self) -> bool:
        """Whether the warm-up is over."""
        return self._began != (0.0, 0.0) and not self.figures

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._warm_up:
            self._began = _now()
        if state.global_step >= self._warm_up:
            self._marks.append(_mark())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._marks.append(_mark())
        wall, cpu = (after - before for before, after in zip(self._began, _now(), strict=True))
        self.steps = steps = state.global_step - self._warm_up
        self.figures = {
            "stepSeconds": wall / steps,
            "cpuSecondsOfStep": cpu / steps,
            "stepsPerSecond": steps / wall,
            "peakMegabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "trainLoss": state.log_history[-1].get("train_loss", float("nan")),
        }
        each = [_seconds(*marks) for marks in itertools.pairwise(self._marks)]
        self.figures |= {
            "stepSecondsMedian": statistics.median(each),
            "stepSecondsLeast": min(each),
            "stepSecondsMost": max(each),
        }
        if torch.cuda.is_available():
            self.figures["peakAcceleratorMegabytes"] = torch.cuda.max_memory_allocated() / 1e6


def _mark() -> Any:
    """A point in the work that has been queued."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


def _seconds(one: Any, two: Any) -> float:
    """Between two points, both of which have been reached."""
    return float(one.elapsed_time(two)) / 1000 if torch.cuda.is_available() else float(two - one)


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
