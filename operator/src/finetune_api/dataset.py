"""Dataset: examples of one source or several, checked, cleaned and split once, as an immutable revision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LARGEST_SEED, ApiModel, Line, Name, RunFile, Timestamp, cel
from finetune_api.dataset_generation import Generate, GeneratedStatus, GenerationContent
from finetune_api.dataset_reference import PinnedRevision, SplitName
from finetune_api.evaluation import MOST_ASKED
from finetune_api.evaluation_results import ModelUsage
from finetune_api.finetunejob import DatasetError, DatasetFormat, DatasetSource, KeepOrDrop
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN, RetriedRunStatus, RunId, RunSpec, a_change_is_a_new_run
from finetune_api.model_graders import Template
from finetune_api.safety.screening import Screening, ScreeningStatus
from finetune_api.unions import OneOf

Phase = Literal["Waiting", "Building", "Retrying", "Suspended", "Succeeded", "Failed", "Cancelled"]
SPLIT_NAMES: tuple[SplitName, ...] = ("training", "validation", "test")
SOURCE = "source"
"""The name of spec.source among the parts of a dataset."""
MOST_PARTS = 16
MOST_SOURCES = 32
"""In the status; revision.json has all of them."""
MOST_WARNINGS = 20
MOST_ERRORS = 20
MOST_RUNS = 10
REVISION_NAME = "revision.json"
PartName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
"""Shorter than other names: it is part of a volume's."""


class DatasetPart(DatasetSource):
    """One of several sources that are merged."""

    name: PartName = Field(description="Name of the part, in messages and in status.sources.")
    weight: int = Field(
        ge=1, le=1_000_000, description="Its share of the examples is this, divided by the sum of all weights."
    )


class Cleaning(ApiModel):
    """What to do with questionable examples. They are counted in the status in any case."""

    duplicates: KeepOrDrop = Field("Drop", description="Examples identical to an earlier one.")
    near_duplicates: KeepOrDrop = Field(
        "Keep", description="Examples whose text is almost identical to an earlier one."
    )
    conflicts: KeepOrDrop = Field("Keep", description="All examples of a prompt that has several different answers.")
    leaks: KeepOrDrop = Field(
        "Drop",
        description="Training examples (almost) identical to a validation or test example, and validation examples to "
        "a test example.",
    )


class DatasetSplit(ApiModel):
    """Which share of the examples is held out, and which examples stay together."""

    validation_percent: int = Field(0, ge=0, le=50, description="Percentage of the examples. 0: no such split.")
    test_percent: int = Field(0, ge=0, le=40, description="Percentage of the examples. 0: no such split.")
    by: Template | None = Field(
        None,
        description="Template such as {{item.document}}. Examples for which it renders the same text are in the same "
        "split. Omitted: examples that begin with the same messages, up to the user's first.",
    )


_GENERATED = cel(
    (
        "!has(self.generate) || !has(self.format)",
        "what is generated has the format of its prompts: chat messages or prompt/completion pairs",
        "format",
    )
)


def _rules(schema: dict[str, Any]) -> None:
    """CEL: within a run, every field but the changeable ones stays what it was."""
    rules = schema.setdefault("x-kubernetes-validations", [])
    rules.insert(0, a_change_is_a_new_run(schema, CHANGEABLE_WITHIN_A_RUN))
    rules += _GENERATED["x-kubernetes-validations"]


class DatasetSpec(OneOf, RunSpec):
    """Where the examples come from, and how they are cleaned and split."""

    model_config = ConfigDict(json_schema_extra=_rules)
    choices = ("source", "merge", "generate")

    run_id: RunId = Field("1", description="Change it to build again, alone or together with other fields.")
    class_name: Name | None = Field(
        None, description="Name of the FineTuneClass. Omitted: the default class at the time the run starts."
    )
    source: DatasetSource | None = Field(None, description="Files of examples.")
    merge: list[DatasetPart] | None = Field(
        None,
        min_length=2,
        max_length=MOST_PARTS,
        json_schema_extra=keyed_by("name"),
        description="Several sources, by weight. None is repeated: the one that runs out first limits all.",
    )
    generate: Generate | None = Field(None, description="Completions of a model to prompts.")
    format: DatasetFormat | None = Field(None, description="Format of every line. Omitted: that of the first line.")
    prepare: Cleaning = Cleaning()
    screening: Screening | None = Field(None, description="Omitted: examples are not screened.")
    split: DatasetSplit = DatasetSplit()
    seed: int = Field(
        17, ge=0, le=LARGEST_SEED, description="Decides which examples are held out, and which merged, and completions."
    )


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


class EarlierBuild(ApiModel):
    """An earlier run of this object, whose revision stays in the storage."""

    run_id: Line = Field(description="spec.runId of that run.")
    phase: Phase = Field(description="Phase in which it ended.")
    completion_time: Timestamp
    digest: Line | None = Field(None, description="Digest of its revision.")
    uri: Line | None = Field(None, description="Folder of its revision.")


class DatasetStatus(RetriedRunStatus):
    """State of the run, and the revision that it committed."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_number: int | None = Field(None, description="Number of the run, counting from 1.")
    run_digest: Line | None = Field(
        None, description="Digest of the run's number and spec, which tells runs with the same runId apart."
    )
    prompts_revision: PinnedRevision | None = None
    usage: list[ModelUsage] = Field(
        default=[], max_length=MOST_ASKED, json_schema_extra=keyed_by("model"), description="What generate used."
    )
    revision: Revision | None = Field(None, description="What the run committed.")
    error_count: int = Field(0, description="All invalid lines.")
    errors: list[DatasetError] = Field(default=[], max_length=MOST_ERRORS, description="The first invalid lines.")
    history: list[EarlierBuild] = Field(default=[], max_length=MOST_RUNS, description="Earlier runs, oldest first.")
