"""spec.hyperparameters, and what the automatic rules make of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel

Schedule = Literal["Cosine", "Linear", "Constant"]


class EarlyStopping(ApiModel):
    """End the run when evalLoss no longer falls."""

    patience: int = Field(3, ge=1, le=1000, description="So many evaluations in a row without an improvement.")
    min_delta: float = Field(0.0, ge=0, le=1000, description="What evalLoss must fall by to count as one.")


class Hyperparameters(ApiModel):
    """Omitted values are chosen from the dataset and the model; status.resolved shows them."""

    epochs: float | None = Field(None, gt=0, le=1000)
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Examples a step, over all processes; where they are packed, rows of maxLength tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, le=1)
    schedule: Schedule | None = None
    warmup_percent: float | None = Field(None, ge=0, le=100)
    weight_decay: float | None = Field(None, ge=0, le=1)
    max_length: int | None = Field(None, ge=8, le=1048576, description="Tokens; longer examples are truncated.")
    packing: bool | None = None
    seed: int | None = Field(None, ge=0, le=4294967295)
    early_stopping: EarlyStopping | None = Field(
        None, description="The best checkpoint becomes the result, unless checkpoints.best says otherwise."
    )


class ResolvedHyperparameters(ApiModel):
    """The values that the run uses: spec, completed by the automatic rules."""

    epochs: float
    batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup_percent: float
    weight_decay: float
    max_length: int
    packing: bool
    seed: int
    batch_tokens: int | None = Field(
        None, description="Where rows are packed: tokens of a step at most, batchSize rows of maxLength."
    )
    total_steps: int
    checkpoint_every_steps: int
    beta: float | None = Field(None, description="Of DPO.")
    early_stopping: EarlyStopping | None = None
