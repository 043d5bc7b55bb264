"""Evaluation: tuned models against their baseline on a held-out dataset, with gates."""

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
"""Short, so that the scores of every candidate by every grader fit a termination message."""


class ModelReference(OneOf):
    """A model by its URI, or the result of a fine-tuning job."""

    choices = ("uri", "fine_tune_job_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder, or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(None, description="The result of this FineTuneJob.")


class Candidate(ApiModel):
    """A model to be judged."""

    name: ShortName = Field(description="What results call it.")
    model: ModelReference


class Baseline(ApiModel):
    """The model that candidates are compared with."""

    model: ModelReference


class EvaluationDataset(ApiModel):
    """Held-out examples. The last assistant message is the reference; the model sees what stands before it."""

    uri: DatasetUri = Field(
        description="s3://bucket/path, or hf://datasets/org/name@revision/path, of JSON Lines, Parquet or Arrow."
    )
    limit_examples: int | None = Field(
        None, ge=1, le=MOST_EXAMPLES, description="So many examples, at most. Omitted: all."
    )


class StringCheck(ApiModel):
    """OpenAI's string_check: 1 when the comparison holds, else 0."""

    input: Text = Field("{{sample.output_text}}", description="Template of what is compared.")
    reference: Text = Field("{{item.reference}}", description="Template of what it is compared with.")
    operation: Literal["Eq", "Ne", "Like", "ILike"] = Field(
        "Eq", description="Like: input contains reference; ILike: the same without regard to case."
    )


class TextSimilarity(ApiModel):
    """OpenAI's text_similarity: 0 to 1."""

    input: Text = Field("{{sample.output_text}}", description="Template of what is compared.")
    reference: Text = Field("{{item.reference}}", description="Template of what it is compared with.")
    metric: Literal["FuzzyMatch"] = Field("FuzzyMatch", description="FuzzyMatch: rapidfuzz's ratio.")


class JsonSchema(ApiModel):
    """1 when the output is JSON that the schema accepts, else 0."""

    schema_: dict[str, Any] = Field(alias="schema", description="A JSON Schema (2020-12) without $ref to other files.")


class ToolCallMatch(ApiModel):
    """1 when the output calls the tools that the reference calls, no more and no fewer, in any order; else 0.

    Where the reference calls none, 1 when the output calls none.
    """

    arguments: Literal["Exact", "Subset", "Ignore"] = Field(
        "Exact",
        description="Exact: the same JSON. Subset: all that the reference has; objects may have more keys. Ignore: "
        "only the names of the tools count.",
    )
    ignore_arguments: list[Line] = Field(
        default=[],
        max_length=32,
        json_schema_extra=SET,
        description="Names of arguments that do not count, whatever the tool.",
    )


class Grader(TypedUnion):
    """Gives each output a score from 0 to 1. The type's own member may be left out where all of its fields may."""

    name: ShortName = Field(description="What gates and results call it.")
    type: Literal["StringCheck", "TextSimilarity", "JsonSchema", "ToolCall"] = Field(
        description="How outputs are graded; the member of the same name has its settings."
    )
    string_check: StringCheck | None = None
    text_similarity: TextSimilarity | None = None
    json_schema: JsonSchema | None = None
    tool_call: ToolCallMatch | None = None


class Generation(ApiModel):
    """How outputs are sampled; greedy by default."""

    max_tokens: int = Field(256, ge=1, le=32768, description="Most tokens of an output.")
    temperature: float = Field(0.0, ge=0, le=2, description="0: greedy.")
    seed: int = Field(17, ge=0, le=4294967295, description="Of what is sampled.")


class Gate(OneOf):
    """What every candidate must reach."""

    choices = ("minimum", "minimum_delta")

    grader: ShortName = Field(description="Name of one of spec.graders.")
    minimum: float | None = Field(None, ge=0, le=1, description="Least mean score.")
    minimum_delta: float | None = Field(None, ge=-1, le=1, description="Least gain over the baseline's mean score.")


class EvaluationSpec(ApiModel):
    """What to judge, on what, and what to demand."""

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
        None, description="FineTuneClass; omitted: the one that is the default when the run begins."
    )
    run_id: Name = Field("1", description="Change it to evaluate again.")
    candidates: list[Candidate] = Field(
        min_length=1, max_length=3, json_schema_extra=keyed_by("name"), description="Models to be judged."
    )
    baseline: Baseline | None = Field(None, description="Omitted: the base model of the first candidate's job.")
    dataset: EvaluationDataset
    graders: list[Grader] = Field(
        min_length=1, max_length=5, json_schema_extra=keyed_by("name"), description="How outputs are graded."
    )
    generation: Generation = Generation()
    gates: list[Gate] = Field(
        default=[],
        max_length=10,
        description="What every candidate must reach. They may change within a run. Empty: nothing.",
    )
    retry_limit: int = Field(
        3, ge=0, le=100, description="Transient failures after which it is tried again; disruptions never count."
    )


class Score(ApiModel):
    """Mean score of one model by one grader, with its 95 % confidence interval."""

    candidate: ShortName = Field(description="The candidate's name, or baseline.")
    grader: ShortName = Field(description="The grader's name.")
    score: float = Field(allow_inf_nan=False, description="Mean over the examples, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower end of the interval.")
    high: float = Field(allow_inf_nan=False, description="Upper end of the interval.")
    examples: int = Field(description="Examples that were graded.")
    delta: FiniteNumber = Field(None, description="Gain over the baseline on the same examples.")
    delta_low: FiniteNumber = Field(None, description="Lower end of the gain's interval.")
    delta_high: FiniteNumber = Field(None, description="Upper end of the gain's interval.")


class GateResult(ApiModel):
    """The verdict of one gate on one candidate."""

    candidate: ShortName = Field(description="The candidate's name.")
    grader: ShortName = Field(description="The grader's name.")
    passed: bool = Field(description="Whether it was reached.")
    message: Line = Field(description="The numbers.")


class EvaluationStatus(KindStatus):
    """What the evaluation measured."""

    phase: Phase | None = Field(None, description="Where the run stands, in one word.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status is about.")
    class_name: Line | None = Field(None, description="The FineTuneClass that was used.")
    run_digest: Line | None = Field(None, description="Of what the run measures: a runId that comes again is no proof.")
    job_name: Name | None = Field(None, description="Job of the try that runs, or ran last.")
    try_number: int | None = Field(None, alias="try", description="Which try, counted from 1.")
    retries: int = Field(0, description="Tries that failed so far; counts against retryLimit.")
    disruptions: int = Field(0, description="Tries that the infrastructure ended.")
    disruption: Disruption | None = Field(None, description="Of the try that runs, as it was seen first.")
    retry_time: Timestamp | None = Field(None, description="When the next try starts, if the last one ended early.")
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = Field(None, description="When the run ended, well or badly.")
    storage_uri: Line | None = Field(None, description="Folder of this run's reports and samples.")
    candidate_digests: dict[str, Line] = Field(
        default={}, max_length=3, description="Digest of the model that was judged, by candidate."
    )
    results: list[Score] = Field(default=[], max_length=20, description="Scores of every model by every grader.")
    gates: list[GateResult] = Field(default=[], max_length=30, description="Each candidate at each gate.")
    failure: FailureStatus | None = None
    summary: Line | None = Field(None, description="The first grader: candidate against baseline, for kubectl get.")
    report_uri: Line | None = Field(None, description="The HTML report.")
