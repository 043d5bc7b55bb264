"""Graders in specs: the settings of each type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import ApiModel, Line, Text, cel
from finetune_api.graders.model_graders import Calibration, LabelModel, ModelName, Pairwise, ScoreModel
from finetune_api.kubernetes_types import SET
from finetune_api.unions import TypedUnion

ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=32)]
"""Short, so that every score of every candidate fits into a termination message."""

GraderType = Literal[
    "StringCheck", "TextSimilarity", "JsonSchema", "ToolCall", "ScoreModel", "LabelModel", "Pairwise", "Python", "Multi"
]

MOST_SOURCE_BYTES = 256 * 1024
"""Of a Python grader, as with OpenAI."""


class StringCheck(ApiModel):
    """OpenAI's string_check grader: 1 if the comparison holds, otherwise 0."""

    input: Text = Field("{{sample.output_text}}", description="Template for the text to grade.")
    reference: Text = Field("{{item.reference}}", description="Template for the text to compare with.")
    operation: Literal["Eq", "Ne", "Like", "ILike"] = Field(
        "Eq", description="Like: input contains reference. ILike: the same, ignoring case."
    )


class TextSimilarity(ApiModel):
    """OpenAI's text_similarity grader: 0 to 1."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.metric) || (self.metric == 'Cosine') == has(self.model)",
                "metric Cosine requires model, and no other metric has one",
                "model",
            )
        )
    )

    input: Text = Field("{{sample.output_text}}", description="Template for the text to grade.")
    reference: Text = Field("{{item.reference}}", description="Template for the text to compare with.")
    metric: Literal[
        "FuzzyMatch", "BLEU", "GLEU", "METEOR", "ROUGE1", "ROUGE2", "ROUGE3", "ROUGE4", "ROUGE5", "ROUGEL", "Cosine"
    ] = Field(
        "FuzzyMatch",
        description="FuzzyMatch: WRatio of rapidfuzz. BLEU: sentence BLEU of sacrebleu. GLEU, METEOR: of nltk. ROUGE: "
        "F1 of rouge-score, without stemming. Cosine: of the embeddings by `model`, and 0 if it is negative.",
    )
    model: ModelName | None = Field(
        None, description="For Cosine: name of an embedding model in spec.models of the FineTuneClass."
    )


class JsonSchema(ApiModel):
    """1 if the output is JSON that validates against the schema, otherwise 0."""

    schema_: dict[str, Any] = Field(
        alias="schema", description="JSON Schema (2020-12); $ref to other documents is not allowed."
    )


class ToolCallMatch(ApiModel):
    """1 if the output makes exactly the tool calls of the reference, otherwise 0.

    If the reference makes no tool calls, 1 if the output makes none.
    """

    arguments: Literal["Exact", "Subset", "Ignore"] = Field(
        "Exact",
        description="Exact: the same JSON. Subset: everything in the reference; objects may have additional keys. "
        "Ignore: only tool names are compared.",
    )
    ignore_arguments: list[Line] = Field(
        default=[],
        max_length=32,
        json_schema_extra=SET,
        description="Argument names to ignore, for every tool.",
    )
    order: Literal["Any", "InOrder"] = Field(
        "Any", description="InOrder: the calls must be in the order of the reference."
    )
    partial_credit: bool = Field(
        False, description="Score the F1 of the tool calls, instead of 0 unless all of them match."
    )


class PythonCode(ApiModel):
    """OpenAI's python grader: a function that returns a score from 0 to 1. It runs in a sandbox without network."""

    source: Annotated[str, StringConstraints(min_length=1, max_length=MOST_SOURCE_BYTES)] = Field(
        description="Python code, at most 256 KiB, that defines `grade(sample, item)`."
    )
    timeout_seconds: int = Field(
        120, ge=1, le=120, description="Seconds that one output may take; the first one includes the code's imports."
    )


class Multi(ApiModel):
    """A formula over the scores of other graders in the list, limited to 0 to 1."""

    calculate_output: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Names of graders other than Multi (with _ for a hyphen), numbers, parentheses, + - * / ^, and the "
        "functions min, max, abs, floor, ceil, exp, sqrt and log.",
    )


class Grader(TypedUnion):
    """Scores each output from 0 to 1. The member for the type may be omitted if all of its fields are optional."""

    name: ShortName = Field(description="Name of the grader in gates and results.")
    type: GraderType = Field(description="Type of grader; its settings are in the member of the same name.")
    pass_threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Minimum score of an output that passes; every output has at least 0. Omitted: 1 for StringCheck, "
        "JsonSchema, LabelModel "
        "and ToolCall without partialCredit, otherwise 0.5.",
    )
    string_check: StringCheck | None = None
    text_similarity: TextSimilarity | None = None
    json_schema: JsonSchema | None = None
    tool_call: ToolCallMatch | None = None
    score_model: ScoreModel | None = None
    label_model: LabelModel | None = None
    pairwise: Pairwise | None = None
    python: PythonCode | None = None
    multi: Multi | None = None

    @property
    def asks(self) -> str | None:
        """The model of the class that grades, if one does."""
        for spec in (self.score_model, self.label_model, self.pairwise, self.text_similarity):
            if spec is not None:
                return spec.model
        return None

    @property
    def calibration(self) -> Calibration | None:
        """What the model that grades is tested on, if it is."""
        spec = self.score_model or self.label_model
        return None if spec is None else spec.calibration
