"""spec.dataset: what to learn from, and what to measure on."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import MOST_EXAMPLES, ApiModel, cel
from finetune_api.kubernetes_types import ConfigMapKey, SubdomainName
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf

DatasetFormat = Literal["Chat", "PromptCompletion", "Preference"]
KeepOrDrop = Literal["Keep", "Drop"]


class Limit(OneOf):
    """Learn on a subset first: the same seed gives nested subsets."""

    choices = ("examples", "percent")

    examples: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="So many examples, at most.")
    percent: int | None = Field(None, ge=1, le=100, description="Share of the examples, at least one.")


class ConfigMapKeys(ApiModel):
    """A ConfigMap of the job's namespace, for a small dataset: each key is a file."""

    name: SubdomainName = Field(description="Name of a ConfigMap in the same namespace.")
    key: ConfigMapKey | None = Field(None, description="Omitted: every key, in order.")


class DatasetSource(OneOf):
    """Files of examples; several are one dataset, in the order of their URIs."""

    choices: ClassVar[tuple[str, ...]] = ("uri", "uris", "config_map_ref")

    uri: DatasetUri | None = Field(
        None,
        description="s3://bucket/path, or hf://datasets/org/name@revision/path: a file, a folder (ends with /), or a "
        "glob (* within a folder, ** over folders). JSON Lines (plain, gzip, zstd), Parquet or Arrow.",
    )
    uris: list[DatasetUri] | None = Field(
        None, min_length=1, max_length=64, description="Several such URIs, in this order."
    )
    config_map_ref: ConfigMapKeys | None = Field(None, description="A ConfigMap, for a small dataset.")


class TrainingData(DatasetSource):
    """Examples to learn from."""

    limit: Limit | None = Field(None, description="Learn on a subset first.")


class ValidationData(DatasetSource):
    """Examples to measure on: files, or a share of the training set."""

    choices = ("uri", "uris", "config_map_ref", "split_percent")

    split_percent: int | None = Field(
        None, ge=1, le=50, description="Share of the training set that is held out and not learned from."
    )


class Prepare(ApiModel):
    """What is done about doubtful examples of the training set. All of them are counted in status.dataset anyway."""

    duplicates: KeepOrDrop = Field("Keep", description="Examples that are the same as an earlier one.")
    near_duplicates: KeepOrDrop = Field("Keep", description="Examples whose text is almost that of an earlier one.")
    conflicts: KeepOrDrop = Field("Keep", description="All examples of a prompt that has several answers.")
    leaks: KeepOrDrop = Field("Keep", description="Examples that are (almost) the same as one of the validation set.")
    too_long: Literal["Truncate", "Drop", "Fail"] = Field(
        "Truncate", description="Examples of more tokens than hyperparameters.maxLength, in both sets."
    )


class Dataset(ApiModel):
    """What to learn from, and what to measure on."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.prepare.leaks == 'Keep' || has(self.validation)",
                "prepare.leaks: Drop needs a validation set",
                "prepare.leaks",
            )
        )
    )

    training: TrainingData
    validation: ValidationData | None = None
    format: DatasetFormat | None = Field(
        None, description="What every line must be; omitted: what the first line of the training set is."
    )
    prepare: Prepare = Prepare()
