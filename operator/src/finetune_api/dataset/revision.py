"""A revision of a Dataset: its files, and what they were made from."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import ApiModel, Line, RunFile
from finetune_api.dataset.generation import GeneratedStatus, GenerationContent
from finetune_api.dataset.spec import Cleaning, DatasetSplit
from finetune_api.dataset_reference import SplitName
from finetune_api.finetunejob import DatasetFormat
from finetune_api.kubernetes_types import keyed_by
from finetune_api.safety.screening import ScreeningStatus

SPLIT_NAMES: tuple[SplitName, ...] = ("training", "validation", "test")
MOST_SOURCES = 32
"""In the status; revision.json has all of them."""
MOST_WARNINGS = 20
REVISION_NAME = "revision.json"


class SplitStatus(ApiModel):
    """One split of the revision."""

    name: SplitName = Field(description="Name of the split.")
    uri: Line | None = Field(None, description="Its file, in JSON Lines.")
    examples: int = Field(description="Number of examples.")
    size: int = Field(description="Size in bytes.")
    sha256: Line = Field(description="SHA-256 of the file.")


class SourceFile(ApiModel):
    """A file that was read."""

    uri: Line = Field(description="URI of the file.")
    sha256: Line = Field(description="SHA-256 of the file as it was read.")
    part: Line = Field(description="Name of its part of spec.merge, or source, or prompts.")
    examples: int = Field(description="Valid examples in it; of prompts, the completions that were kept.")
    taken: int = Field(description="Those of them in the revision.")


class LeftOut(ApiModel):
    """Examples that are not in the revision, by cause."""

    screening: int = Field(0, description="Flagged by spec.screening.")
    duplicates: int = Field(0, description="Identical to an earlier one.")
    near_duplicates: int = Field(0, description="Almost identical to an earlier one.")
    conflicts: int = Field(0, description="Several different answers to one prompt.")
    leaks: int = Field(0, description="(Almost) identical to a held-out example.")
    weights: int = Field(0, description="Beyond what the weights of spec.merge allow.")


class RevisionContent(RunFile):
    """What a revision consists of, and what it was made from: `revision.json` beside its files, whose SHA-256 is the
    revision's digest. It has no times, so that the same sources give the same revision."""

    example_format: DatasetFormat
    examples: int = Field(description="Examples of all splits.")
    splits: list[SplitStatus] = Field(max_length=3, json_schema_extra=keyed_by("name"))
    left_out: LeftOut | None = Field(None, description="Absent: nothing was left out.")
    screening: ScreeningStatus | None = None
    generated: GenerationContent | None = None
    sources: list[SourceFile] = Field(default=[], description="The files that were read.")
    warnings: list[Line] = Field(
        default=[], max_length=MOST_WARNINGS, description="Questionable findings that are not errors."
    )
    weights: dict[str, int] = Field(default={}, description="Of the parts of spec.merge.")
    prepare: Cleaning
    split: DatasetSplit
    seed: int


class Revision(ApiModel):
    """What was committed."""

    digest: Line = Field(description="sha256:... of its revision.json, which has the digests of all files and sources.")
    uri: Line = Field(description="Folder of the revision, which is never written again.")
    format: DatasetFormat = Field(description="Format of every line.")
    examples: int = Field(description="Examples of all splits.")
    splits: list[SplitStatus] = Field(
        max_length=3, json_schema_extra=keyed_by("name"), description="Those that have examples."
    )
    left_out: LeftOut | None = Field(None, description="Absent: nothing was left out.")
    screening: ScreeningStatus | None = None
    generated: GeneratedStatus | None = None
    sources: list[SourceFile] = Field(
        default=[], max_length=MOST_SOURCES, description="The first files that were read; revision.json has all."
    )
    source_count: int = Field(0, description="Number of files that were read.")
    warnings: list[Line] = Field(
        default=[], max_length=MOST_WARNINGS, description="Questionable findings that are not errors."
    )
