"""What preflight found in dataset and model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line
from finetune_api.finetunejob.dataset import DatasetFormat

MOST_WARNINGS = 20


class DatasetError(ApiModel):
    """One broken line, in the words of OpenAI's validator."""

    file: Literal["training", "validation"]
    uri: Line | None = Field(None, description="Which file, where the set has several.")
    line: int = Field(description="Counted from 1.")
    message: Line


class FileStatistics(ApiModel):
    """Counts of one file, after limit and split."""

    examples: int
    tokens: int
    max_tokens: int = Field(description="Tokens of the longest example.")
    truncated: int = Field(0, description="Examples longer than maxLength.")
    rows: int | None = Field(
        None,
        description="What a batch is made of: the examples; or a row for each answer, where the chat template rewrites "
        "earlier turns; or rows of maxLength tokens, where they are packed.",
    )


class Dropped(ApiModel):
    """Training examples that dataset.prepare left out; tooLong counts those of both sets."""

    duplicates: int = 0
    near_duplicates: int = 0
    conflicts: int = 0
    leaks: int = 0
    too_long: int = 0


class DatasetStatus(ApiModel):
    """What preflight found in the dataset."""

    format: DatasetFormat | None = None
    training: FileStatistics | None = None
    validation: FileStatistics | None = None
    dropped: Dropped | None = Field(None, description="Absent: nothing was.")
    error_count: int = 0
    errors: list[DatasetError] = Field(default=[], max_length=20, description="The first broken lines.")
    warnings: list[Line] = Field(default=[], max_length=MOST_WARNINGS)


class ModelStatus(ApiModel):
    """What preflight found in the model."""

    architecture: Line
    parameters: int | None = None
    context_length: int | None = Field(
        None, description="Tokens of the longest sequence that it was made for. Absent: its files name none."
    )


class MemoryEstimate(ApiModel):
    """Bytes that one process needs on its accelerator, by the rules in docs/explanation/preflight.md."""

    weights: int
    adapter: int = Field(0, description="Weights of the adapter, in the precision that they are trained in.")
    gradients: int
    optimizer: int
    activations: int
    total: int
    accelerator: int | None = Field(None, description="Memory of one accelerator, if the class says it.")
