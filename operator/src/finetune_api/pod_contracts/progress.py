"""Progress reports, in the wire format of transformers' KubeflowCallback, so that a user's own image can report too.

A POST of {"trainerStatus": {...}} with a bearer token. Metrics are name/value pairs of strings. The names read here are
those of the callback (current_step, total_steps, current_epoch, loss, eval_loss, learning_rate) and seven others
(tokens_per_second, checkpoint_step, reward, valid_reward, reward_gap, completion_growth, eval_step: the step of the
newest evaluation).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from finetune_api.base import LONGEST_SECONDS, MOST_STEPS, ApiModel, FiniteNumber, whole_seconds
from finetune_api.evaluation import MOST_MODELS, CandidateProgress
from finetune_api.finetunejob import CheckpointStatus, CorruptCheckpoint, Progress

PROGRESS_AUDIENCE = "finetune.dev/progress"
PROGRESS_BODY_BYTES = 256 * 1024
PROGRESS_INTERVAL_SECONDS = 5


_OF_LOGGED_STEPS = ("loss", "eval_loss", "learning_rate", "reward", "valid_reward", "reward_gap", "completion_growth")
WARNED_GAP = 0.1
WARNED_GROWTH = 3.0


class Metric(ApiModel):
    """One number, as text."""

    name: Annotated[str, StringConstraints(max_length=128)]
    value: Annotated[str, StringConstraints(max_length=128)]


class TrainerStatus(ApiModel):
    """One report, as the callback sends it."""

    progress_percentage: int | None = Field(None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(None, ge=0, le=LONGEST_SECONDS)
    metrics: list[Metric] = Field(default=[], max_length=128)
    last_updated_time: AwareDatetime = Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))


class CheckpointReport(ApiModel):
    """An addition to the protocol: all committed checkpoints, complete in each report, so that a lost report loses
    nothing."""

    checkpoints: list[CheckpointStatus] = Field(
        default=[], max_length=100, description="Committed checkpoints, oldest first."
    )
    corrupt: list[CorruptCheckpoint] = Field(default=[], max_length=20)
    checkpoint_seconds: FiniteNumber = Field(
        None, ge=0, description="Longest time from the start of a save to its commit."
    )


class ProgressReport(ApiModel):
    """The body of the POST."""

    trainer_status: TrainerStatus
    ledger: CheckpointReport | None = None
    candidates: list[CandidateProgress] | None = Field(
        None, max_length=MOST_MODELS, description="An addition to the protocol: how far an evaluation's models are."
    )

    @classmethod
    def read(cls, body: bytes) -> ProgressReport:
        """The report in a body; fields of newer senders are left out. Raises pydantic.ValidationError."""
        return cls.model_validate_json(body, extra="ignore")

    @model_validator(mode="after")
    def _names_each_candidate_once(self) -> ProgressReport:
        names = [one.candidate for one in self.candidates or []]
        if len(set(names)) < len(names):
            raise ValueError("candidates must have different names")
        return self


def to_progress(status: TrainerStatus) -> Progress | None:
    """The report in the form of a job's status; None if it does not have the number of steps."""
    reported = {metric.name: number for metric in status.metrics if (number := _number(metric.value)) is not None}
    numbers = {name: number for name, number in reported.items() if math.isfinite(number)}
    if not 1 <= numbers.get("total_steps", 0) <= MOST_STEPS:
        return None
    total = int(numbers["total_steps"])
    step = int(min(max(numbers.get("current_step", 0), 0), total))
    measured = ("eval_loss" in numbers or "valid_reward" in numbers) and 0 <= numbers.get("eval_step", -1) <= total
    return Progress(
        step=step,
        total_steps=total,
        percent=status.progress_percentage if status.progress_percentage is not None else 100 * step // total,
        epoch=shown(numbers.get("current_epoch")),
        loss=shown(numbers.get("loss")),
        eval_loss=shown(numbers.get("eval_loss")),
        reward=shown(numbers.get("reward")),
        valid_reward=shown(numbers.get("valid_reward")),
        reward_gap=shown(numbers.get("reward_gap")),
        completion_growth=shown(numbers.get("completion_growth")),
        eval_step=int(numbers["eval_step"]) if measured else None,
        learning_rate=shown(numbers.get("learning_rate")),
        not_finite=[to_camel(name) for name in _OF_LOGGED_STEPS if name in reported.keys() - numbers.keys()] or None,
        # None yet, right after a resume.
        tokens_per_second=shown(numbers.get("tokens_per_second")) or None,
        estimated_remaining_seconds=status.estimated_remaining_seconds,
        last_updated_time=whole_seconds(status.last_updated_time),
    )


def carried(progress: Progress, before: Progress | None) -> Progress:
    """The progress, with the remaining time also in human-readable form.

    Right after a resume, the attempt's own speed is unknown until its first step is complete, and its losses until a
    step is logged or evaluated; until then, those in the status `before` are used, which is of the same run.
    """
    remaining = progress.estimated_remaining_seconds
    if before is not None:
        progress = _with_logged(progress, before)
    if remaining is None and before is not None and before.step < before.total_steps:
        remaining = _at_the_speed_of(before, progress.total_steps - progress.step)
    text = None if remaining is None else human_duration(remaining)
    return progress.model_copy(update={"estimated_remaining_seconds": remaining, "estimated_remaining": text})


def _with_logged(progress: Progress, before: Progress) -> Progress:
    """The progress with what `before` knew of the metrics that it does not mention."""
    reported, known = progress.not_finite or [], before.not_finite or []
    silent = [name for name in _OF_LOGGED_STEPS if getattr(progress, name) is None and to_camel(name) not in reported]
    values = {name: getattr(before, name) for name in silent}
    if {"eval_loss", "valid_reward"} <= set(silent):
        values["eval_step"] = before.eval_step
    not_finite = [*reported, *(to_camel(name) for name in silent if to_camel(name) in known)]
    return progress.model_copy(update={**values, "not_finite": not_finite or None})


def _at_the_speed_of(before: Progress, steps: int) -> int | None:
    """Seconds that this many steps take; None if the earlier speed is unknown too."""
    if before.estimated_remaining_seconds is None:
        return None
    return round(before.estimated_remaining_seconds / (before.total_steps - before.step) * steps)


def human_duration(seconds: int) -> str:
    """At most two units, as kubectl shows ages (k8s.io/apimachinery/pkg/util/duration): 90s, 7m5s, 42m, 3h20m, 5d."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def hacking_signs(gap: float | None, growth: float | None) -> list[str]:
    """Sentences about a model that may game its graders, by an evaluation's figures; none if these are usual."""
    found = []
    if gap is not None and gap > WARNED_GAP:
        found.append(
            f"The training reward is {gap:.2f} above validReward: the model may have found a weakness of the graders."
        )
    if growth is not None and growth >= WARNED_GROWTH:
        found.append(f"Completions have {growth:.1f} times as many tokens as at first: the graders may reward length.")
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def shown(number: float | None) -> float | None:
    """The number rounded to five significant digits."""
    return None if number is None else float(f"{number:.5g}")
