"""What a person sees of a training on a laptop: what it does now, how far it is, and what stays to be read."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from finetune_api.outcome import Failure
from finetune_api.progress import CheckpointLedger, TrainerStatus

_KEPT = frozenset({"started", "resumed", "corrupt", "checkpoint", "back_pressure", "early_stopping"})
"""The events that stay on the screen; the others pass by in the line below."""


class Screen:
    """A terminal has a line that changes; a file or a pipe gets each line of the log instead.

    It is a sink of structlog, and the receiver of the training's progress.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, facts="")
        self._last_loss: float | None = None

    def open(self) -> None:
        """Show, and take over the log."""
        structlog.configure(processors=[structlog.processors.add_log_level, self._take])
        if self._console.is_terminal:
            self._progress.start()

    def shut(self) -> None:
        """Remove the line that changes."""
        if self._progress.live.is_started:
            self._progress.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._console.print(text, style=style or None, markup=False)

    def show_facts(self, facts: Mapping[str, object]) -> None:
        """A small table that stays. Paths in it are to be copied: no line is broken or cut."""
        width = max(len(name) for name in facts)
        for name, value in facts.items():
            self.say(f"  {name:{width}}  {value}")

    def show_failure(self, failure: Failure) -> None:
        """As the condition of a FineTuneJob says it."""
        self.say(f"{failure.reason.value}: {failure.message}", style="red")
        if failure.suggestion:
            self.say(failure.suggestion)
        for error in failure.dataset.errors if failure.dataset is not None else []:
            self.say(f"  {error.file}, line {error.line}: {error.message}")

    def send(self, status: TrainerStatus, ledger: CheckpointLedger | None = None) -> None:
        """Where the training is."""
        metrics = {metric.name: float(metric.value) for metric in status.metrics or []}
        self._progress.update(
            self._task,
            description="training",
            completed=metrics.get("current_step", 0.0),
            total=metrics.get("total_steps"),
            facts=_facts(metrics, status.estimated_remaining_seconds),
        )

    def close(self) -> None:
        """Nothing is under way."""

    def _take(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """A line of the log; structlog's last processor."""
        text = str(event["event"])
        if event["level"] in ("warning", "error", "critical"):
            self.say(text, style="yellow")
        elif event.get("type") in _KEPT or not self._console.is_terminal:
            self.say(text)
        elif "tokens_per_second" not in event:  # which `send` has shown
            self._progress.update(self._task, description=text)
        raise structlog.DropEvent


def _facts(metrics: Mapping[str, float], remaining_seconds: int | None) -> str:
    facts = [
        f"{name} {metrics[key]:.4f}" for name, key in (("loss", "loss"), ("validation", "eval_loss")) if key in metrics
    ]
    if metrics.get("tokens_per_second"):
        facts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    if remaining_seconds is not None:
        facts.append(f"{to_duration(remaining_seconds)} left")
    return " · ".join(facts)


def to_duration(seconds: int) -> str:
    """`1:02:03`, or `2:03`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
