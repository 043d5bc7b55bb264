"""spec.checkpoints, and the checkpoints in status."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import MOST_STEPS, ApiModel, FiniteNumber, Line, Timestamp


class Best(ApiModel):
    """Selects the checkpoint that becomes the result."""

    metric: Literal["EvalLoss", "TrainLoss", "ValidReward"] = Field(
        "EvalLoss",
        description="EvalLoss: the loss on dataset.validation. TrainLoss: the loss on dataset.training. ValidReward: "
        "RFT's mean reward on dataset.validation.",
    )
    goal: Literal["Minimize", "Maximize"] = Field(
        "Minimize", description="Whether the lowest or the highest value is best."
    )

    @property
    def metric_name(self) -> str:
        """The metric's name in a checkpoint's manifest."""
        return self.metric[0].lower() + self.metric[1:]

    @property
    def of_rewards(self) -> bool:
        """Whether it is a reward, not a loss."""
        return self.metric == "ValidReward"


class Checkpoints(ApiModel):
    """How often to save checkpoints, and which to keep."""

    every_steps: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="Steps between two checkpoints. Omitted: a tenth of the run, at least 10 steps.",
    )
    keep: int = Field(
        3,
        ge=1,
        le=100,
        description="Number of most recent checkpoints to keep. The best one is always kept. With ValidReward: of the "
        "best ones, and the newest.",
    )
    best: Best | None = Field(
        None,
        description="Which checkpoint becomes the result. Omitted: the last one (earlyStopping: the best by EvalLoss; "
        "RFT: by ValidReward).",
    )
    start_over_if_corrupt: bool = Field(
        False,
        description="If checkpoints exist but all of them are corrupt: true starts over, false fails the run "
        "(CheckpointCorrupt).",
    )


class CheckpointStatus(ApiModel):
    """A committed checkpoint."""

    step: int = Field(description="Step after which it was saved.")
    uri: Line = Field(description="Folder of the checkpoint.")
    metric: FiniteNumber = Field(None, description="Value of checkpoints.best.metric, if measured.")
    size: int | None = Field(None, description="Size in bytes.")
    committed_time: Timestamp | None = None
    digest: Line | None = Field(None, description="SHA-256 of its manifest.")


class CorruptCheckpoint(ApiModel):
    """A checkpoint that was skipped because its files do not match its manifest."""

    step: int = Field(description="Step after which it was saved.")
    message: Line = Field(description="What does not match.")
