"""Evaluation: compares tuned models with a baseline on a held-out dataset, and applies gates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import (
    MOST_EXAMPLES,
    ApiModel,
    FiniteNumber,
    Line,
    LocalObjectReference,
    Name,
    Text,
    Timestamp,
    cel,
)
from finetune_api.conditions import KindStatus
from finetune_api.finetunejob import Disruption, FailureStatus
from finetune_api.kubernetes_types import SET, keyed_by
from finetune_api.sources import DatasetUri, ModelUri
from finetune_api.unions import OneOf, TypedUnion

Phase = Literal["Waiting", "Evaluating", "Retrying", "Passed", "GateFailed", "Failed"]
BASELINE = "baseline"

ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=32)]
"""Short, so that every score of every candidate fits into a termination message."""


class ModelReference(OneOf):
    """A model, by URI or as the result of a FineTuneJob."""

    choices = ("uri", "fine_tune_job_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(None, description="Use the result of this FineTuneJob.")


class Candidate(ApiModel):
    """A model to evaluate."""

    name: ShortName = Field(description="Name of the candidate in the results.")
    model: ModelReference


class Baseline(ApiModel):
    """The model that the candidates are compared with."""

    model: ModelReference


class EvaluationDataset(ApiModel):
    """Held-out examples. The last assistant message is the reference; the model gets everything before it as the
    prompt."""

    uri: DatasetUri = Field(
        description="s3://bucket/path or hf://datasets/org/name@revision/path; JSON Lines, Parquet or Arrow."
    )
    limit_examples: int | None = Field(
        None, ge=1, le=MOST_EXAMPLES, description="Maximum number of examples. Omitted: all."
    )


class StringCheck(ApiModel):
    """OpenAI's string_check grader: 1 if the comparison holds, otherwise 0."""

    input: Text = Field("{{sample.output_text}}", description="Template for the text to grade.")
    reference: Text = Field("{{item.reference}}", description="Template for the text to compare with.")
    operation: Literal["Eq", "Ne", "Like", "ILike"] = Field(
        "Eq", description="Like: input contains reference. ILike: the same, ignoring case."
    )


class TextSimilarity(ApiModel):
    """OpenAI's text_similarity grader: 0 to 1."""

    input: Text = Field("{{sample.output_text}}", description="Template for the text to grade.")
    reference: Text = Field("{{item.reference}}", description="Template for the text to compare with.")
    metric: Literal["FuzzyMatch"] = Field("FuzzyMatch", description="FuzzyMatch: the ratio computed by rapidfuzz.")


class JsonSchema(ApiModel):
    """1 if the output is JSON that validates against the schema, otherwise 0."""

    schema_: dict[str, Any] = Field(
        alias="schema", description="JSON Schema (2020-12); $ref to other documents is not allowed."
    )


class ToolCallMatch(ApiModel):
    """1 if the output makes exactly the tool calls of the reference, in any order, otherwise 0.

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


class Grader(TypedUnion):
    """Scores each output from 0 to 1. The member for the type may be omitted if all of its fields are optional."""

    name: ShortName = Field(description="Name of the grader in gates and results.")
    type: Literal["StringCheck", "TextSimilarity", "JsonSchema", "ToolCall"] = Field(
        description="Type of grader; its settings are in the member of the same name."
    )
    string_check: StringCheck | None = None
    text_similarity: TextSimilarity | None = None
    json_schema: JsonSchema | None = None
    tool_call: ToolCallMatch | None = None


class Generation(ApiModel):
    """How outputs are generated; greedy by default."""

    max_tokens: int = Field(256, ge=1, le=32768, description="Maximum number of tokens per output.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    seed: int = Field(17, ge=0, le=4294967295, description="Seed for sampling.")


class Gate(OneOf):
    """A threshold that every candidate must reach."""

    choices = ("minimum", "minimum_delta")

    grader: ShortName = Field(description="Name of a grader in spec.graders.")
    minimum: float | None = Field(None, ge=0, le=1, description="Minimum mean score.")
    minimum_delta: float | None = Field(None, ge=-1, le=1, description="Minimum gain over the baseline's mean score.")


class EvaluationSpec(ApiModel):
    """Which models to evaluate, on which data, and which scores they must reach."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.gates.all(gate, self.graders.exists(grader, grader.name == gate.grader))",
                "each gate names one of the graders",
                "gates",
            ),
            (
                "self.candidates.all(candidate, candidate.name != 'baseline')",
                "a candidate can't be named baseline",
                "candidates",
            ),
            (
                "has(self.baseline) || has(self.candidates[0].model.fineTuneJobRef)",
                "without a baseline the first candidate must be a fineTuneJobRef, whose base model is the baseline",
                "baseline",
            ),
            (
                "self.runId != oldSelf.runId || (self.candidates == oldSelf.candidates && has(self.baseline) == "
                "has(oldSelf.baseline) && (!has(self.baseline) || self.baseline == oldSelf.baseline) && self.dataset "
                "== oldSelf.dataset && self.graders == oldSelf.graders && self.generation == oldSelf.generation)",
                "a change of what is measured is a new run: change spec.runId too (gates may change freely)",
            ),
        )
    )

    class_name: Name | None = Field(
        None, description="Name of the FineTuneClass. Omitted: the default class at the time the run starts."
    )
    run_id: Name = Field("1", description="Change it to run the evaluation again.")
    candidates: list[Candidate] = Field(
        min_length=1, max_length=3, json_schema_extra=keyed_by("name"), description="Models to evaluate."
    )
    baseline: Baseline | None = Field(None, description="Omitted: the base model of the first candidate's FineTuneJob.")
    dataset: EvaluationDataset
    graders: list[Grader] = Field(
        min_length=1, max_length=5, json_schema_extra=keyed_by("name"), description="Graders to apply to each output."
    )
    generation: Generation = Generation()
    gates: list[Gate] = Field(
        default=[],
        max_length=10,
        description="Thresholds that every candidate must reach. They may be changed during a run. Empty: none.",
    )
    retry_limit: int = Field(
        3, ge=0, le=100, description="Number of retries after transient failures. Disruptions never count."
    )


class Score(ApiModel):
    """Mean score of one model from one grader, with its 95 % confidence interval."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    grader: ShortName = Field(description="Name of the grader.")
    score: float = Field(allow_inf_nan=False, description="Mean over all graded examples, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower bound of the confidence interval.")
    high: float = Field(allow_inf_nan=False, description="Upper bound of the confidence interval.")
    examples: int = Field(description="Number of graded examples.")
    delta: FiniteNumber = Field(None, description="Gain over the baseline on the same examples.")
    delta_low: FiniteNumber = Field(None, description="Lower bound of the gain's confidence interval.")
    delta_high: FiniteNumber = Field(None, description="Upper bound of the gain's confidence interval.")


class GateResult(ApiModel):
    """Result of one gate for one candidate."""

    candidate: ShortName = Field(description="Name of the candidate.")
    grader: ShortName = Field(description="Name of the grader.")
    passed: bool = Field(description="Whether the candidate reached the gate.")
    message: Line = Field(description="The measured and required values.")


class EvaluationStatus(KindStatus):
    """State and results of the evaluation."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status describes.")
    class_name: Line | None = Field(None, description="FineTuneClass that the run uses.")
    run_digest: Line | None = Field(
        None, description="Digest of what the run measures, which tells runs with the same runId apart."
    )
    job_name: Name | None = Field(None, description="Name of the current or most recent Job.")
    try_number: int | None = Field(None, alias="try", description="Number of the try, counting from 1.")
    retries: int = Field(0, description="Failed tries so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Tries ended by the infrastructure.")
    disruption: Disruption | None = Field(None, description="First disruption observed during the current try.")
    retry_time: Timestamp | None = Field(None, description="When the next try starts, if the previous one ended early.")
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = Field(None, description="When the run ended, whether it succeeded or failed.")
    storage_uri: Line | None = Field(None, description="Folder with the reports and samples of this run.")
    candidate_digests: dict[str, Line] = Field(
        default={}, max_length=3, description="Digest of the evaluated model, by candidate."
    )
    results: list[Score] = Field(default=[], max_length=20, description="Scores of every model from every grader.")
    gates: list[GateResult] = Field(default=[], max_length=30, description="Result of every gate for every candidate.")
    failure: FailureStatus | None = None
    summary: Line | None = Field(
        None, description="First candidate compared with the baseline by the first grader, for `kubectl get`."
    )
    report_uri: Line | None = Field(None, description="URI of the JSON report.")
