"""What an Evaluation compares: models by URI, results and checkpoints of jobs, models behind an API, outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from finetune_api.base import MOST_STEPS, ApiModel, LocalObjectReference, cel
from finetune_api.graders import ModelName, ShortName
from finetune_api.sources import DatasetUri, ModelUri
from finetune_api.unions import OneOf

BASELINE = "baseline"
MOST_CANDIDATES = 8
"""Each checkpoint of a job is one."""
ALL = "All"
"""The CheckpointChoice of every kept checkpoint."""


def _step_or(*names: str) -> WithJsonSchema:
    """A step, or one of these names."""
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": f"^({'|'.join(names)})$",
            "maxLength": 32,
            "minimum": 1,
            "maximum": MOST_STEPS,
            "x-kubernetes-int-or-string": True,
        }
    )


Step = Annotated[int, Field(ge=1, le=MOST_STEPS)]
CheckpointChoice = Annotated[Step | Literal["Best", "Last"], _step_or("Best", "Last")]
"""One of the checkpoints that a job has kept."""
CheckpointChoices = Annotated[Step | Literal["Best", "Last", "All"], _step_or("Best", "Last", "All")]
"""One of them, or all."""


_OF_A_JOB = (
    "!has(self.checkpoint) || has(self.fineTuneJobRef)",
    "checkpoint requires fineTuneJobRef",
    "checkpoint",
)


class ModelReference(OneOf):
    """A model, by URI or as the result or a checkpoint of a FineTuneJob."""

    model_config = ConfigDict(json_schema_extra=cel(_OF_A_JOB))

    choices = ("uri", "fine_tune_job_ref", "sweep_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(None, description="Use the result of this FineTuneJob.")
    sweep_ref: LocalObjectReference | None = Field(
        None, description="Use the result of the best trial of this FineTuneSweep, once that has succeeded."
    )
    checkpoint: CheckpointChoice | None = Field(
        None,
        description="Use a checkpoint that the FineTuneJob has kept, not its result: Best (by its checkpoints.best), "
        "Last, or a step.",
    )


class Endpoint(ApiModel):
    """A model of the class."""

    name: ModelName = Field(description="Name of a model in spec.models of the FineTuneClass.")


class Outputs(ApiModel):
    """Outputs that exist already; no model is loaded or asked."""

    uri: DatasetUri = Field(
        description="As dataset.uri. A line has `output_text`, and the `id` of its example or the place of its example "
        "in the dataset."
    )


class EvaluatedModel(OneOf):
    """The model that answers the examples, or its existing outputs."""

    model_config = ConfigDict(json_schema_extra=cel(_OF_A_JOB))

    choices = ("uri", "fine_tune_job_ref", "sweep_ref", "endpoint", "outputs")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(None, description="Use the result of this FineTuneJob.")
    sweep_ref: LocalObjectReference | None = Field(
        None, description="Use the result of the best trial of this FineTuneSweep, once that has succeeded."
    )
    checkpoint: CheckpointChoices | None = Field(
        None,
        description="Use a checkpoint that the FineTuneJob has kept, not its result: Best (by its checkpoints.best), "
        "Last, a step, or All (each is a candidate of its own).",
    )
    endpoint: Endpoint | None = Field(None, description="Ask a model of the class through its API.")
    outputs: Outputs | None = None


class Candidate(ApiModel):
    """A model to evaluate."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.model.checkpoint) || self.model.checkpoint != 'All' || size(self.name) <= 16",
                "with checkpoint All: at most 16 characters",
                "name",
            )
        )
    )

    name: ShortName = Field(
        description="Name of the candidate in the results; with checkpoint All, NAME-step-N for each."
    )
    model: EvaluatedModel


class Baseline(ApiModel):
    """The model that the candidates are compared with."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.model.checkpoint) || self.model.checkpoint != 'All'",
                "the baseline is one model, not All checkpoints",
                "model.checkpoint",
            )
        )
    )

    model: EvaluatedModel
