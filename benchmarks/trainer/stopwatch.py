"""Time, CPU and memory of the steps after the warm-up. In both contenders, as a callback of the Trainer."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """`figures` after the training; CPU seconds are those of all threads of the process."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._began = (0.0, 0.0)
        self.steps = 0
        self.figures: dict[str, float] = {}

    @property
    def running(self) -> bool:
        """Whether the warm-up is over."""
        return self._began != (0.0, 0.0) and not self.figures

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._warm_up:
            self._began = _now()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wall, cpu = (after - before for before, after in zip(self._began, _now(), strict=True))
        self.steps = steps = state.global_step - self._warm_up
        self.figures = {
            "stepSeconds": wall / steps,
            "cpuSecondsOfStep": cpu / steps,
            "stepsPerSecond": steps / wall,
            "peakMegabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "trainLoss": state.log_history[-1].get("train_loss", float("nan")),
        }
        if torch.cuda.is_available():
            self.figures["peakAcceleratorMegabytes"] = torch.cuda.max_memory_allocated() / 1e6


def _now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()
