"""spec of a Dataset: where the examples come from, and how they are cleaned and split."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LARGEST_SEED, ApiModel, Name, cel
from finetune_api.dataset.generation import Generate
from finetune_api.finetunejob import DatasetFormat, DatasetSource, KeepOrDrop
from finetune_api.graders import Template
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN, RunId, RunSpec, a_change_is_a_new_run
from finetune_api.safety.screening import Screening
from finetune_api.unions import OneOf

SOURCE = "source"
"""The name of spec.source among the parts of a dataset."""
MOST_PARTS = 16
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
