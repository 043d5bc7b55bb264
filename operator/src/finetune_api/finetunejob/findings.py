"""What preflight found in dataset and model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import ApiModel, Line
from finetune_api.finetunejob.dataset import DatasetFormat

MOST_WARNINGS = 20
MOST_EXAMPLES = 10**12
"""Steps over so many, a thousand times each, are still a number."""


class DatasetError(ApiModel):
    """One broken line, in the words of OpenAI's validator."""

    file: Literal["training", "validation"] = Field(description="Which set.")
    uri: Line | None = Field(None, description="Which file, where the set has several.")
    line: int = Field(description="Counted from 1.")
    message: Line = Field(description="What is wrong with the line.")


class FileStatistics(ApiModel):
    """Counts of one file, after limit and split."""

    examples: int = Field(le=MOST_EXAMPLES, description="Examples that are used.")
    tokens: int = Field(description="Tokens of all of them.")
    max_tokens: int = Field(description="Tokens of the longest example.")
    truncated: int = Field(0, description="Examples longer than maxLength.")
    rows: int | None = Field(
        None,
        le=MOST_EXAMPLES,
        description="What a batch is made of: the examples; or a row for each answer, where the chat template rewrites "
        "earlier turns; or rows of maxLength tokens, where they are packed.",
    )


class Dropped(ApiModel):
    """Training examples that dataset.prepare left out; tooLong counts those of both sets."""

    duplicates: int = Field(0, description="The same as an earlier one.")
    near_duplicates: int = Field(0, description="Almost the same as an earlier one.")
    conflicts: int = Field(0, description="With several answers to one prompt.")
    leaks: int = Field(0, description="(Almost) the same as one of the validation set.")
    too_long: int = Field(0, description="Longer than hyperparameters.maxLength.")


class DatasetStatus(ApiModel):
    """What preflight found in the dataset."""

    format: DatasetFormat | None = Field(None, description="What every line is.")
    training: FileStatistics | None = None
    validation: FileStatistics | None = None
    dropped: Dropped | None = Field(None, description="Absent: nothing was.")
    error_count: int = Field(0, description="Broken lines in all.")
    errors: list[DatasetError] = Field(default=[], max_length=20, description="The first broken lines.")
    warnings: list[Line] = Field(default=[], max_length=MOST_WARNINGS, description="What is doubtful, but no error.")


class ModelStatus(ApiModel):
    """What preflight found in the model."""

    architecture: Line = Field(description="Class of transformers that its config.json names.")
    parameters: int | None = Field(None, description="Weights in all.")
    context_length: int | None = Field(
        None, description="Tokens of the longest sequence that it was made for. Absent: its files name none."
    )


class MemoryEstimate(ApiModel):
    """Bytes that one process needs on its accelerator, by the rules in docs/explanation/preflight.md."""

    weights: int = Field(description="The model's weights.")
    adapter: int = Field(0, description="Weights of the adapter, in the precision that they are trained in.")
    gradients: int = Field(description="Gradients of what is trained.")
    optimizer: int = Field(description="AdamW's two moments.")
    activations: int = Field(description="Of one forward and backward pass.")
    total: int = Field(description="All together.")
    accelerator: int | None = Field(None, description="Memory of one accelerator, if the class says it.")
