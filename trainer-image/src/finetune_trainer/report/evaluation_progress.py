"""How far an evaluation is, as the operator shows it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from finetune_api.evaluation import CandidateProgress
from finetune_api.pod_contracts.progress import TrainerStatus
from finetune_api.pod_contracts.run import ProgressTarget
from finetune_trainer.report.progress import ProgressSender, to_trainer_status

STEPS_OF_OUTPUT = 99
"""The share of making an output in its progress, of a hundred, if no grader asks a model."""
REPORT_SECONDS = 0.5
"""Creating a report takes longer than counting. The sender sends even fewer of them."""


class EvaluationReceiver(Protocol):
    """A receiver of an evaluation's reports."""

    def send(self, status: TrainerStatus, *, candidates: list[CandidateProgress]) -> None:
        """Take a report. Must not block."""


class OutputCounter(Protocol):
    """What is reported of a model's outputs."""

    def found(self, model: str, count: int) -> None:
        """Count outputs of an earlier try."""

    def made(self, model: str, count: int = 1) -> None:
        """Count outputs that the model has just made."""


class NoProgress:
    """For outputs that are not counted as they are made."""

    def found(self, model: str, count: int) -> None:
        """Count nothing."""

    def made(self, model: str, count: int = 1) -> None:
        """Count nothing."""


class EvaluationReporter:
    """Counts outputs and grades, and reports them.

    `graders`: how many grades an output gets. `asks`: whether one of them asks a model, so that grading an output is as
    much work as making it; otherwise it takes next to nothing. `further`: the answers of a model to benchmarks and to
    attacks, and the verdicts on the latter, each of which is as much work as an output.
    """

    def __init__(
        self,
        sender: EvaluationReceiver | None,
        models: Iterable[str],
        total: int,
        graders: int,
        *,
        asks: bool,
        further: int = 0,
    ) -> None:
        self._sender = sender
        self._total = total
        self._graders = max(1, graders)
        self._output_steps = 1 if asks else STEPS_OF_OUTPUT
        self._outputs = dict.fromkeys(models, 0)
        self._grades = dict.fromkeys(self._outputs, 0)
        self._further = further
        self._answered = 0
        self._found = 0
        self._began = time.monotonic()
        self._reported_time = 0.0

    def found(self, model: str, count: int) -> None:
        """Count saved outputs, which say nothing about the speed of this try unless it has made them itself."""
        others = max(0, count - self._outputs[model])
        self._found += others
        self.made(model, others)

    def made(self, model: str, count: int = 1) -> None:
        """Count outputs that the model has just made."""
        self._outputs[model] += count
        self._report()

    def graded(self, model: str, count: int = 1) -> None:
        """Count grades of the model's outputs."""
        self._grades[model] += count
        self._report()

    def answered(self, count: int, earlier: bool) -> None:
        """Count further answers of a model, in this try or an earlier one."""
        self._answered += count
        if earlier:
            self._found += count
        self._report()

    def candidates(self) -> list[CandidateProgress]:
        """How far every model is."""
        return [
            CandidateProgress(
                candidate=model,
                outputs=min(made, self._total),
                graded=min(self._grades[model] // self._graders, self._total),
                total=self._total,
            )
            for model, made in self._outputs.items()
        ]

    def report(self) -> None:
        """Report now."""
        self._reported_time = time.monotonic()
        if self._sender is None:
            return
        candidates = self.candidates()
        of_outputs = sum(self._output_steps * one.outputs + one.graded for one in candidates)
        total = (self._output_steps + 1) * self._total + self._output_steps * self._further
        steps = {
            "current_step": of_outputs + self._output_steps * self._answered,
            "total_steps": total * len(candidates),
        }
        self._sender.send(to_trainer_status(steps, self._remaining_seconds(**steps)), candidates=candidates)

    def _report(self) -> None:
        if time.monotonic() - self._reported_time >= REPORT_SECONDS:
            self.report()

    def _remaining_seconds(self, current_step: int, total_steps: int) -> int | None:
        done = current_step - self._output_steps * self._found
        if done <= 0:
            return None
        return round((time.monotonic() - self._began) / done * (total_steps - current_step))


class FurtherOutputs:
    """Counts outputs that are no answers to the dataset."""

    def __init__(self, progress: EvaluationReporter) -> None:
        self._progress = progress

    def found(self, _: str, count: int) -> None:
        """Count outputs of an earlier try."""
        self._progress.answered(count, earlier=True)

    def made(self, _: str, count: int = 1) -> None:
        """Count outputs that a model has just made."""
        self._progress.answered(count, earlier=False)


@contextmanager
def progress_sender(target: ProgressTarget | None) -> Iterator[ProgressSender | None]:
    """Reports are sent within, the last one at the end."""
    if target is None:
        yield None
        return
    sender = ProgressSender(target)
    try:
        yield sender
    finally:
        sender.close()
