"""spec.dataset: the training and validation examples."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from finetune_api.base import MOST_EXAMPLES, ApiModel, cel
from finetune_api.dataset_reference import DatasetRef
from finetune_api.kubernetes_types import ConfigMapKey, SubdomainName
from finetune_api.safety.screening import Screening
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf

DatasetFormat = Literal["Chat", "PromptCompletion", "Preference", "Reinforcement"]
KeepOrDrop = Literal["Keep", "Drop"]


Percent = Annotated[
    int | float,
    Field(gt=0, le=100),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100}),
]
"""A whole number stays one, so that it has the digest that it always had."""


class Limit(OneOf):
    """Trains on a subset. Subsets with the same seed are nested."""

    choices = ("examples", "percent")

    examples: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="Maximum number of examples.")
    percent: Percent | None = Field(None, description="Percentage of the examples, at least one example.")


class ConfigMapKeys(ApiModel):
    """A ConfigMap in the job's namespace that holds a small dataset. Each key is a file."""

    name: SubdomainName = Field(description="Name of a ConfigMap in the same namespace.")
    key: ConfigMapKey | None = Field(None, description="Key to read. Omitted: every key, in alphabetical order.")


class DatasetSource(OneOf):
    """Files of examples. Several files form one dataset."""

    choices: ClassVar[tuple[str, ...]] = ("uri", "uris", "config_map_ref")

    uri: DatasetUri | None = Field(
        None,
        description="s3://bucket/path or hf://datasets/org/name@revision/path: a file, folder (trailing /) or glob "
        "(*, ** across folders). JSON Lines (plain, gzip, zstd), Parquet or Arrow.",
    )
    uris: list[DatasetUri] | None = Field(
        None, min_length=1, max_length=64, description="Several such URIs, read in this order."
    )
    config_map_ref: ConfigMapKeys | None = Field(None, description="A ConfigMap that holds a small dataset.")


class TrainingData(DatasetSource):
    """Training examples."""

    choices = (*DatasetSource.choices, "dataset_ref")

    dataset_ref: DatasetRef | None = Field(None, description="A split of a Dataset.")
    limit: Limit | None = Field(None, description="Train on a subset of the examples.")


class ValidationData(DatasetSource):
    """Validation examples: files, or a share of the training set."""

    choices = (*TrainingData.choices, "split_percent")

    uri: DatasetUri | None = Field(None, description="As training.uri.")
    uris: list[DatasetUri] | None = Field(None, min_length=1, max_length=64, description="As training.uris.")
    config_map_ref: ConfigMapKeys | None = Field(None, description="As training.configMapRef.")
    dataset_ref: DatasetRef | None = Field(None, description="A split of a Dataset.")
    split_percent: int | None = Field(None, ge=1, le=50, description="Percentage of the training set to hold out.")


class Prepare(ApiModel):
    """What to do with questionable training examples. They are counted in status.dataset in any case."""

    duplicates: KeepOrDrop = Field("Keep", description="Examples identical to an earlier one.")
    near_duplicates: KeepOrDrop = Field(
        "Keep", description="Examples whose text is almost identical to an earlier one."
    )
    conflicts: KeepOrDrop = Field("Keep", description="All examples of a prompt that has several different answers.")
    leaks: KeepOrDrop = Field("Keep", description="Examples (almost) identical to a validation example.")
    too_long: Literal["Truncate", "Drop", "Fail"] = Field(
        "Truncate", description="Examples with more tokens than hyperparameters.maxLength, in both sets."
    )


class Dataset(ApiModel):
    """The training and validation examples."""

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
        None, description="Format of every line. Omitted: the format of the first line of the training set."
    )
    prepare: Prepare = Prepare()
    screening: Screening | None = Field(None, description="Omitted: examples are not screened.")

    def references(self) -> dict[Literal["training", "validation"], DatasetRef]:
        """The sets that are splits of Datasets."""
        found: dict[Literal["training", "validation"], DatasetRef] = {}
        if self.training.dataset_ref is not None:
            found["training"] = self.training.dataset_ref
        if self.validation is not None and self.validation.dataset_ref is not None:
            found["validation"] = self.validation.dataset_ref
        return found
