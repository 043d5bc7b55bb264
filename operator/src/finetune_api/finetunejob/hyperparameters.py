"""spec.hyperparameters, and the values resolved from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import LARGEST_SEED, ApiModel

Schedule = Literal["Cosine", "Linear", "Constant"]


class EarlyStopping(ApiModel):
    """Ends the run when evalLoss stops improving."""

    patience: int = Field(3, ge=1, le=1000, description="Evaluations in a row without an improvement.")
    min_delta: float = Field(
        0.0, ge=0, le=1000, description="Minimum decrease of evalLoss that counts as an improvement."
    )


class Hyperparameters(ApiModel):
    """Omitted values are chosen from the dataset and the model; see status.resolved."""

    epochs: float | None = Field(None, gt=0, le=1000, description="Passes over the training set.")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Examples per optimizer step, over all processes. With packing: rows of maxLength tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="Peak learning rate, after warm-up.")
    schedule: Schedule | None = Field(
        None,
        description="Learning rate schedule after warm-up. Cosine and Linear decay to 0.",
    )
    warmup_percent: float | None = Field(None, ge=0, le=100, description="Percentage of steps used for warm-up.")
    weight_decay: float | None = Field(None, ge=0, le=1, description="AdamW's weight decay.")
    max_length: int | None = Field(
        None,
        ge=8,
        le=1048576,
        description="Maximum tokens per example; see dataset.prepare.tooLong.",
    )
    packing: bool | None = Field(
        None,
        description="Pack several examples into each row of maxLength tokens. They do not attend to each other. "
        "Omitted: for SFT on accelerators, if batchSize is omitted too and the model's architecture supports it.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=LARGEST_SEED,
        description="Random seed for example order, adapter initialization, dropout and splits.",
    )
    early_stopping: EarlyStopping | None = Field(
        None,
        description="Ends the run when evalLoss stops improving; the best checkpoint becomes the result.",
    )


class ResolvedHyperparameters(ApiModel):
    """The run's hyperparameters, with omitted values filled in."""

    epochs: float = Field(description="Passes over the training set.")
    batch_size: int = Field(description="Examples, or packed rows, per optimizer step over all processes.")
    learning_rate: float = Field(description="Peak learning rate.")
    schedule: Schedule = Field(description="Learning rate schedule after warm-up.")
    warmup_percent: float = Field(description="Percentage of steps used for warm-up.")
    weight_decay: float = Field(description="AdamW's weight decay.")
    max_length: int = Field(description="Maximum tokens per example.")
    packing: bool = Field(description="Whether several examples are packed into a row.")
    seed: int = Field(description="Random seed.")
    batch_tokens: int | None = Field(
        None, description="With packing: maximum tokens per step (batchSize rows of maxLength)."
    )
    total_steps: int = Field(description="Optimizer steps in the run.")
    checkpoint_every_steps: int = Field(description="Steps between two checkpoints.")
    beta: float | None = Field(None, description="DPO's beta.")
    early_stopping: EarlyStopping | None = None
