"""Progress reports: the wire form of transformers' KubeflowCallback, so that a user's own image reports too.

POST of {"trainerStatus": {...}} with a bearer token. Metrics are name/value pairs of strings; the names read here are
those that the callback sends: current_step, total_steps, current_epoch, loss, eval_loss, learning_rate, and ours:
tokens_per_second, checkpoint_step.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from finetune_api.base import LONGEST_SECONDS, MOST_STEPS, ApiModel, FiniteNumber, whole_seconds
from finetune_api.finetunejob import CheckpointStatus, CorruptCheckpoint, Progress

PROGRESS_AUDIENCE = "finetune.dev/progress"
PROGRESS_BODY_BYTES = 256 * 1024
PROGRESS_INTERVAL_SECONDS = 5


class Metric(ApiModel):
    """One number, as text."""

    name: Annotated[str, StringConstraints(max_length=128)]
    value: Annotated[str, StringConstraints(max_length=128)]


class TrainerStatus(ApiModel):
    """One report. Fields of newer senders are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, protected_namespaces=()
    )

    progress_percentage: int | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(None, ge=0, le=LONGEST_SECONDS)
    metrics: list[Metric] = Field(default=[], max_length=128)
    last_updated_time: AwareDatetime = Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))


class CheckpointLedger(ApiModel):
    """Our addition to the protocol: what is committed now, whole each time, so that a lost report loses nothing."""

    checkpoints: list[CheckpointStatus] = Field(default=[], max_length=100, description="Oldest first.")
    corrupt: list[CorruptCheckpoint] = Field(default=[], max_length=20)
    checkpoint_seconds: FiniteNumber = Field(None, ge=0, description="Longest time from a save's start to its commit.")


class ProgressReport(ApiModel):
    """The body of the POST."""

    trainer_status: TrainerStatus
    ledger: CheckpointLedger | None = None


def to_progress(status: TrainerStatus) -> Progress | None:
    """The report as it stands in a job's status; None when it does not say how many steps there are."""
    numbers = {metric.name: number for metric in status.metrics if (number := _finite(metric.value)) is not None}
    if not 1 <= numbers.get("total_steps", 0) <= MOST_STEPS:
        return None
    total = int(numbers["total_steps"])
    step = int(min(max(numbers.get("current_step", 0), 0), total))
    return Progress(
        step=step,
        total_steps=total,
        percent=status.progress_percentage if status.progress_percentage is not None else 100 * step // total,
        epoch=shown(numbers.get("current_epoch")),
        loss=shown(numbers.get("loss")),
        eval_loss=shown(numbers.get("eval_loss")),
        learning_rate=shown(numbers.get("learning_rate")),
        # None yet, right after a resume.
        tokens_per_second=shown(numbers.get("tokens_per_second")) or None,
        estimated_remaining_seconds=status.estimated_remaining_seconds,
        last_updated_time=whole_seconds(status.last_updated_time),
    )


def carried(progress: Progress, before: Progress | None) -> Progress:
    """The progress, with the remaining time at the speed that the status showed `before` while it has none of its own.

    That is so right after a resume: an attempt's own speed is known from the end of its first step on.
    """
    if progress.estimated_remaining_seconds is not None or before is None or before.step >= before.total_steps:
        return progress
    if before.estimated_remaining_seconds is None:
        return progress
    step_seconds = before.estimated_remaining_seconds / (before.total_steps - before.step)
    remaining = round(step_seconds * (progress.total_steps - progress.step))
    return progress.model_copy(update={"estimated_remaining_seconds": remaining})


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def shown(number: float | None) -> float | None:
    """The number with the five digits that a person reads."""
    return None if number is None else float(f"{number:.5g}")
