"""What preflight found in the dataset and the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, FiniteNumber, Line
from finetune_api.finetunejob.dataset import DatasetFormat
from finetune_api.safety.screening import ScreeningStatus

MOST_WARNINGS = 20
MOST_EXAMPLES = 10**12
"""Steps over so many, a thousand times each, are still a number."""


class DatasetError(ApiModel):
    """An invalid line, described in the words of OpenAI's validator."""

    file: Literal["training", "validation", "source"] = Field(
        description="Set that contains the line; source: of a Dataset."
    )
    uri: Line | None = Field(None, description="File that contains the line, if the set has several.")
    line: int = Field(description="Line number, counting from 1.")
    message: Line = Field(description="What is wrong with the line.")


class FileStatistics(ApiModel):
    """Statistics of one set, after limit and split."""

    examples: int = Field(le=MOST_EXAMPLES, description="Examples used.")
    tokens: int = Field(description="Total number of tokens.")
    max_tokens: int = Field(description="Tokens in the longest example.")
    truncated: int = Field(0, description="Examples longer than maxLength.")
    rows: int | None = Field(
        None,
        le=MOST_EXAMPLES,
        description="Rows that batches consist of: examples, turns or packed rows.",
    )


class Dropped(ApiModel):
    """Training examples dropped by dataset.prepare; screening and tooLong count both sets."""

    screening: int = Field(0, description="Flagged by dataset.screening.")
    duplicates: int = Field(0, description="Identical to an earlier one.")
    near_duplicates: int = Field(0, description="Almost identical to an earlier one.")
    conflicts: int = Field(0, description="Several different answers to one prompt.")
    leaks: int = Field(0, description="(Almost) identical to a validation example.")
    too_long: int = Field(0, description="Longer than hyperparameters.maxLength.")


class DatasetFindings(ApiModel):
    """What preflight found in the dataset."""

    format: DatasetFormat | None = Field(None, description="Format of every line.")
    training: FileStatistics | None = None
    validation: FileStatistics | None = None
    dropped: Dropped | None = Field(None, description="Absent: nothing was dropped.")
    screening: ScreeningStatus | None = None
    error_count: int = Field(0, description="All invalid lines.")
    errors: list[DatasetError] = Field(default=[], max_length=20, description="The first invalid lines.")
    warnings: list[Line] = Field(
        default=[], max_length=MOST_WARNINGS, description="Questionable findings that are not errors."
    )


class ModelStatus(ApiModel):
    """What preflight found in the model."""

    architecture: Line = Field(description="The transformers class named in its config.json.")
    parameters: int | None = Field(None, description="Total number of parameters.")
    context_length: int | None = Field(
        None,
        description="Maximum sequence length in tokens. Absent: the model's files do not say.",
    )


class MemoryEstimate(ApiModel):
    """Estimated accelerator memory per process in bytes; docs/explanation/preflight.md has the formulas."""

    weights: int = Field(description="The model's weights.")
    teacher: int = Field(0, description="Distillation: the teacher's weights.")
    adapter: int = Field(0, description="The adapter's weights, in the precision in which they are trained.")
    gradients: int = Field(description="Gradients of the trained weights.")
    optimizer: int = Field(description="AdamW's two moments.")
    activations: int = Field(description="Activations of one forward and backward pass.")
    total: int = Field(description="Sum of the above.")
    accelerator: int | None = Field(None, description="Memory of one accelerator, if the class specifies it.")
    host: int | None = Field(
        None,
        description="Host memory of the first Pod, for loading and for the checkpoint that is uploaded, in addition to "
        "1 to 2 GB for each process.",
    )


class RewardCalibration(ApiModel):
    """RFT: the rewards of the starting model's answers to some prompts of the training set, before any training."""

    prompts: int = Field(0, description="Prompts answered, each completionsPerPrompt times.")
    mean_reward: FiniteNumber = Field(None, description="Mean reward of all answers.")
    alike: int = Field(0, description="Prompts whose answers all have the same reward: nothing is learned from these.")
    histogram: list[int] = Field(
        default=[], max_length=10, description="Number of answers by reward: below 0.1, below 0.2, ..., up to 1."
    )
    not_measured: Line | None = Field(
        None, description="Why preflight did not measure it; training judges its first 64 prompts."
    )
