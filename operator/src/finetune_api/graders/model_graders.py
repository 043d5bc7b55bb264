"""Graders that ask a model of the class: the settings of each type."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LARGEST_SEED, ApiModel, Text, cel
from finetune_api.kubernetes_types import SET
from finetune_api.sources import DatasetUri

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=32)]
"""The name of one of a class's models."""
Template = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
"""Text with variables: {{item.<field>}}, {{sample.output_text}}, ..."""
Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Message(ApiModel):
    """A message to the model that grades."""

    role: Literal["System", "Developer", "User", "Assistant"] = Field("User", description="Who says it.")
    content: Text = Field(
        description="Template. Fields of the example are inserted as text; parts of the output are quoted in a message "
        "of their own at the end, so that instructions in them are not followed."
    )


class JudgeSampling(ApiModel):
    """How the model generates its reply."""

    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    seed: int = Field(
        1,
        ge=0,
        le=LARGEST_SEED,
        description="Seed for sampling, where the model supports it. Another seed asks again what has been answered "
        "before.",
    )
    max_tokens: int = Field(1024, ge=1, le=32768, description="Maximum number of tokens of a reply.")


class Calibration(ApiModel):
    """Outputs that people have graded, on which the model that grades is tested."""

    uri: DatasetUri = Field(
        description="As dataset.uri. A line is an example as in spec.dataset, with the `output_text` that people have "
        "graded."
    )
    label: Template = Field(
        "{{item.label}}",
        description="Template for what people say of it: for ScoreModel a number of its range, for LabelModel one of "
        "its labels.",
    )


class ScoreModel(ApiModel):
    """OpenAI's score_model grader: the model's number within a range, as a score from 0 to 1."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("!has(self.range) || self.range[0] < self.range[1]", "range is the least and the greatest number", "range")
        )
    )

    model: ModelName = Field(description="Name of a model in spec.models of the FineTuneClass.")
    input: list[Message] = Field(min_length=1, max_length=16, description="What the model is asked.")
    range: list[Annotated[float, Field(ge=-1_000_000, le=1_000_000)]] = Field(
        default=[0.0, 1.0],
        min_length=2,
        max_length=2,
        description="Least and greatest number; others are clamped to them.",
    )
    sampling: JudgeSampling = JudgeSampling()
    calibration: Calibration | None = Field(None, description="Omitted: the model that grades is not tested.")


class LabelModel(ApiModel):
    """OpenAI's label_model grader: 1 if the model chooses a passing label, otherwise 0."""

    model: ModelName = Field(description="Name of a model in spec.models of the FineTuneClass.")
    input: list[Message] = Field(min_length=1, max_length=16, description="What the model is asked.")
    labels: list[Label] = Field(
        min_length=2, max_length=32, json_schema_extra=SET, description="Labels to choose from."
    )
    passing_labels: list[Label] = Field(
        min_length=1, max_length=32, json_schema_extra=SET, description="Labels of an output that passes."
    )
    sampling: JudgeSampling = JudgeSampling()
    calibration: Calibration | None = Field(None, description="Omitted: the model that grades is not tested.")


class Pairwise(ApiModel):
    """1 if the model prefers the output to the baseline's, 0 if it prefers the baseline's, otherwise 0.5."""

    model: ModelName = Field(description="Name of a model in spec.models of the FineTuneClass.")
    criteria: Text = Field(description="Template that says what makes one output better than another.")
    both_orders: bool = Field(
        True, description="Ask twice, with the outputs in both orders; a preference counts only if both replies agree."
    )
    sampling: JudgeSampling = JudgeSampling()
