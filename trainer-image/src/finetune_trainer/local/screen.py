"""The terminal output of a training on a laptop: a progress bar, log lines, and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import structlog
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.progress import CheckpointReport, TrainerStatus

_KEPT = frozenset({"started", "resumed", "corrupt", "checkpoint", "back_pressure", "early_stopping"})
"""The events that stay on the screen; the others pass by in the line below."""
_BAR_WIDTH = 16
"""Leaves room for six digits of steps and a day of seconds in 80 columns."""


class _Bar(Progress):
    """The bar with the step and the time; below it what was measured, and what is done now. Nothing is wider than the
    terminal."""

    measured = doing = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for line in (self.measured, self.doing):
            if line:
                yield Text(f"  {line}", no_wrap=True, overflow="ellipsis")


class Screen:
    """A terminal has lines that change; a file or a pipe gets each line of the log instead.

    It is a sink of structlog, and the receiver of the training's progress.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._progress = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, left="")

    def open(self) -> None:
        """Start to show the progress, and take over the log."""
        structlog.configure(processors=[structlog.processors.add_log_level, self._take])
        if self._console.is_terminal:
            self._progress.start()

    def shut(self) -> None:
        """Remove the live lines."""
        if self._progress.live.is_started:
            self._progress.stop()

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        self._console.print(text, style=style or None, markup=False)

    def show_facts(self, facts: Mapping[str, object]) -> None:
        """Print a small table. Its paths are to be copied: no line is wrapped or cut."""
        width = max(len(name) for name in facts)
        for name, value in facts.items():
            self.say(f"  {name:{width}}  {value}")

    def show_failure(self, failure: Failure) -> None:
        """Print a failure as the condition of a FineTuneJob has it."""
        self.say(f"{failure.reason.value}: {failure.message}", style="red")
        if failure.suggestion:
            self.say(failure.suggestion)
        for error in failure.dataset.errors if failure.dataset is not None else []:
            self.say(f"  {error.file}, line {error.line}: {error.message}")

    def send(self, status: TrainerStatus, checkpoint_report: CheckpointReport | None = None) -> None:
        """Show a progress report."""
        metrics = {metric.name: float(metric.value) for metric in status.metrics or []}
        remaining = status.estimated_remaining_seconds
        self._progress.measured, self._progress.doing = _facts(metrics), ""
        self._progress.update(
            self._task,
            description="training",
            completed=metrics.get("current_step", 0.0),
            total=metrics.get("total_steps"),
            left="" if remaining is None else f"{to_duration(remaining)} left",
        )

    def close(self) -> None:
        """Training is over."""

    def _take(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """Print a log line. The last processor of structlog."""
        text = str(event["event"])
        if event["level"] in ("warning", "error", "critical"):
            self.say(text, style="yellow")
        elif event.get("type") in _KEPT or not self._console.is_terminal:
            self.say(text)
        elif "tokens_per_second" not in event and event.get("type") != "metrics":  # which `send` shows
            self._progress.doing = text
        raise structlog.DropEvent


def _facts(metrics: Mapping[str, float]) -> str:
    facts = [
        f"{name} {metrics[key]:.4f}" for name, key in (("loss", "loss"), ("validation", "eval_loss")) if key in metrics
    ]
    if metrics.get("tokens_per_second"):
        facts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    return " · ".join(facts)


def to_duration(seconds: int) -> str:
    """`1:02:03`, or `2:03`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
