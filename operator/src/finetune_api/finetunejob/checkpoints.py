"""spec.checkpoints, and the checkpoints that there are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import MOST_STEPS, ApiModel, FiniteNumber, Line, Timestamp


class Best(ApiModel):
    """Which checkpoint becomes the result."""

    metric: Literal["EvalLoss", "TrainLoss"] = Field(
        "EvalLoss", description="EvalLoss: the loss on dataset.validation. TrainLoss: the one on dataset.training."
    )
    goal: Literal["Minimize", "Maximize"] = Field("Minimize", description="Whether the least or the most is best.")

    @property
    def metric_name(self) -> str:
        """The metric's name in a checkpoint's manifest."""
        return self.metric[0].lower() + self.metric[1:]


class Checkpoints(ApiModel):
    """How often to save, and what to keep."""

    every_steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="Omitted: a tenth of the run, 10 steps at least."
    )
    keep: int = Field(3, ge=1, le=100, description="Newest checkpoints kept; the best is always kept.")
    best: Best | None = Field(
        None, description="Omitted: the last step is the result (with earlyStopping: the best by EvalLoss)."
    )
    start_over_if_corrupt: bool = Field(
        False,
        description="When there are checkpoints, but none is good: true starts over, false fails (CheckpointCorrupt).",
    )


class CheckpointStatus(ApiModel):
    """A committed checkpoint."""

    step: int = Field(description="Step after which it was saved.")
    uri: Line = Field(description="Its folder.")
    metric: FiniteNumber = Field(None, description="Value of checkpoints.best.metric, if it was measured.")
    size: int | None = Field(None, description="Bytes.")
    committed_time: Timestamp | None = None


class CorruptCheckpoint(ApiModel):
    """A checkpoint whose files are not what its manifest says; it was passed over."""

    step: int = Field(description="Step after which it was saved.")
    message: Line = Field(description="What does not match.")
