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

    epochs: float | None = Field(None, gt=0, le=1000, description="Passes over the training set.")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Examples a step, over all processes; where they are packed, rows of maxLength tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="Learning rate at its peak, after the warm-up.")
    schedule: Schedule | None = Field(
        None,
        description="How the learning rate falls after the warm-up. Cosine and Linear: to 0. Constant: not at all.",
    )
    warmup_percent: float | None = Field(
        None, ge=0, le=100, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float | None = Field(None, ge=0, le=1, description="AdamW's weight decay.")
    max_length: int | None = Field(None, ge=8, le=1048576, description="Tokens; longer examples are truncated.")
    packing: bool | None = Field(
        None, description="Put several examples into a row of maxLength tokens; they do not see each other."
    )
    seed: int | None = Field(
        None, ge=0, le=4294967295, description="Of the order of examples, new adapters, dropout and splits."
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="The best checkpoint becomes the result, unless checkpoints.best says otherwise."
    )


class ResolvedHyperparameters(ApiModel):
    """The values that the run uses: spec, completed by the automatic rules."""

    epochs: float = Field(description="Passes over the training set.")
    batch_size: int = Field(description="Examples a step over all processes, or packed rows.")
    learning_rate: float = Field(description="Learning rate at its peak.")
    schedule: Schedule = Field(description="How the learning rate falls after the warm-up.")
    warmup_percent: float = Field(description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(description="AdamW's weight decay.")
    max_length: int = Field(description="Tokens at which examples are cut.")
    packing: bool = Field(description="Whether examples share rows.")
    seed: int = Field(description="Of every random choice.")
    batch_tokens: int | None = Field(
        None, description="Where rows are packed: tokens of a step at most, batchSize rows of maxLength."
    )
    total_steps: int = Field(description="Optimizer steps of the run.")
    checkpoint_every_steps: int = Field(description="Steps between two checkpoints.")
    beta: float | None = Field(None, description="Of DPO.")
    early_stopping: EarlyStopping | None = None
