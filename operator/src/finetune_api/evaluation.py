"""Evaluation: compares tuned models with a baseline on a held-out dataset, and applies gates."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import (
    LARGEST_SEED,
    MOST_EXAMPLES,
    ApiModel,
    Line,
    Name,
    cel,
)
from finetune_api.benchmarks import MOST_BENCHMARKS, Benchmark
from finetune_api.dataset_reference import DatasetRef, PinnedRevision
from finetune_api.evaluated_models import MOST_CANDIDATES, Baseline, Candidate
from finetune_api.evaluation_gates import MOST_GATES, Gate, GateResult
from finetune_api.evaluation_progress import EvaluationProgress
from finetune_api.evaluation_results import (
    BestCheckpoint,
    CalibrationStatus,
    GatedSliceStatus,
    GradingErrors,
    ModelUsage,
    OutputsStatus,
    Score,
    SentReport,
    SliceScore,
)
from finetune_api.graders import Grader
from finetune_api.kubernetes_types import SET, keyed_by
from finetune_api.lifecycle import RetriedRunStatus, RunId, RunLimits, RunSpec
from finetune_api.model_graders import Template
from finetune_api.safety.attack import MOST_SAFETY_GATES, SAFETY_RULES, Safety, SafetyGate, SafetyStatus
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf

Phase = Literal[
    "Waiting", "Evaluating", "Retrying", "Suspended", "Passed", "GateFailed", "Inconclusive", "Failed", "Cancelled"
]
OnError = Literal["Zero", "Exclude", "Fail"]
Reducer = Literal["Mean", "Median", "Max", "Min", "Majority", "PassAtK", "PassK"]
MOST_GRADERS = 8
MOST_MODELS = MOST_CANDIDATES + 1
"""With the baseline."""
MOST_SCORES = MOST_MODELS * (MOST_GRADERS + MOST_BENCHMARKS)
MOST_SCORES_IN_A_MESSAGE = 32
"""As many fit into a termination message; if there are more, the Pod must reach the operator."""
MOST_ASKED = MOST_GRADERS + 5
"""Models of the class in one evaluation."""
MOST_WARNINGS = 16
MOST_SLICE_SCORES = 512
"""In the status."""


class EvaluationDataset(OneOf):
    """Held-out examples. The last assistant message is the reference; the model gets everything before it as the
    prompt."""

    choices = ("uri", "dataset_ref")

    uri: DatasetUri | None = Field(
        None, description="s3://bucket/path or hf://datasets/org/name@revision/path; JSON Lines, Parquet or Arrow."
    )
    dataset_ref: DatasetRef | None = Field(None, description="A split of a Dataset.")
    max_examples: int | None = Field(
        None, ge=1, le=MOST_EXAMPLES, description="Maximum number of examples. Omitted: all."
    )
    cluster_by: Template | None = Field(
        None,
        description="Template such as {{item.document}}. Examples for which it renders the same text are not "
        "independent, and confidence intervals are widened accordingly.",
    )
    slices: list[Template] = Field(
        default=[],
        max_length=8,
        json_schema_extra=SET,
        description="Templates such as {{item.language}}. status.slices and report.json have the scores for each text.",
    )


class Generation(ApiModel):
    """How outputs are generated; greedy by default."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.samplesPerExample) || self.samplesPerExample == 1 || "
                "(has(self.temperature) && self.temperature > 0.0)",
                "samplesPerExample needs a temperature above 0: greedy outputs are all the same",
                "samplesPerExample",
            )
        )
    )

    max_tokens: int = Field(256, ge=1, le=32768, description="Maximum number of tokens per output.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    seed: int = Field(17, ge=0, le=LARGEST_SEED, description="Seed for sampling.")
    samples_per_example: int = Field(
        1, ge=1, le=100, description="Number of outputs per example. More than one requires a temperature."
    )
    reducer: Reducer = Field(
        "Mean",
        description="How the scores of an example's outputs become one: Mean, Median, Max or Min; Majority: 1 if more "
        "than half of them pass; PassAtK: 1 if any passes; PassK: 1 if all pass.",
    )


class Budget(ApiModel):
    """How much the models of the class may be asked in all tries of the run together, as candidates and by graders.

    Every request counts, answered or not; answers that are in the cache cost nothing. At the limit, what is not graded
    yet is Errored with BudgetExceeded. Another runId has a budget of its own.
    """

    requests: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="Maximum number of requests.")
    tokens: int | None = Field(
        None,
        ge=1,
        le=2**53,
        description="No request is sent once so many tokens were used; those that are being answered then are added.",
    )


class ComparingSpec(RunSpec):
    """Which models are compared, in which run."""

    run_id: RunId = Field("1", description="Change it to run the evaluation again.")
    candidates: list[Candidate] = Field(
        min_length=1, max_length=MOST_CANDIDATES, json_schema_extra=keyed_by("name"), description="Models to evaluate."
    )
    baseline: Baseline | None = Field(None, description="Omitted: the base model of the first candidate's FineTuneJob.")


class MeasuringSpec(RunLimits):
    """What is measured of models, on which data."""

    class_name: Name | None = Field(
        None, description="Name of the FineTuneClass. Omitted: the default class at the time the run starts."
    )
    dataset: EvaluationDataset
    graders: list[Grader] = Field(
        min_length=1,
        max_length=MOST_GRADERS,
        json_schema_extra=keyed_by("name"),
        description="Graders to apply to each output.",
    )
    on_error: OnError = Field(
        "Zero",
        description="How outputs count that a grader can't grade, for example because they are not JSON. Zero: with "
        "score 0. Exclude: not at all, and neither does the baseline's output to the same example. Fail: they end the "
        "run as Failed.",
    )
    max_errored_percent: float = Field(
        5,
        ge=0,
        le=100,
        description="Percentage of a candidate's outputs that a grader may be unable to grade; above it the run is "
        "Failed. Baseline outputs that lack what a grader reads don't count.",
    )
    generation: Generation = Generation()
    budget: Budget | None = Field(None, description="Omitted: no limit.")


class EvaluationSpec(MeasuringSpec, ComparingSpec):
    """Which models to evaluate, on which data, and which scores they must reach."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.gates.all(gate, !has(gate.grader) || self.graders.exists(grader, grader.name == gate.grader))",
                "grader of a gate names one of the graders",
                "gates",
            ),
            (
                "self.gates.all(gate, !has(gate.benchmark) || self.benchmarks.exists(one, one.name == gate.benchmark))",
                "benchmark of a gate names one of the benchmarks",
                "gates",
            ),
            (
                "self.benchmarks.all(one, !self.graders.exists(grader, grader.name == one.name))",
                "a benchmark and a grader have different names",
                "benchmarks",
            ),
            (
                "size(self.benchmarks) == 0 || (self.candidates.all(one, !has(one.model.endpoint) && "
                "!has(one.model.outputs)) && (!has(self.baseline) || (!has(self.baseline.model.endpoint) && "
                "!has(self.baseline.model.outputs))))",
                "benchmarks need the probability of each answer, which only a loaded model has: compare models by uri "
                "or fineTuneJobRef, and others in an Evaluation without benchmarks",
                "benchmarks",
            ),
            (
                "self.gates.all(gate, !has(gate.calibration) || !has(gate.grader) || "
                "self.graders.exists(grader, grader.name == gate.grader "
                "&& ((has(grader.scoreModel) && has(grader.scoreModel.calibration)) || (has(grader.labelModel) && "
                "has(grader.labelModel.calibration)))))",
                "a gate on a calibration names a grader that has one",
                "gates",
            ),
            (
                "self.gates.all(gate, !has(gate.slice) || (has(self.dataset.slices) && "
                "self.dataset.slices.exists(by, by == gate.slice.by)))",
                "slice.by of a gate is one of dataset.slices",
                "gates",
            ),
            (
                "self.candidates.all(candidate, candidate.name != 'baseline')",
                "a candidate can't be named baseline",
                "candidates",
            ),
            (
                "self.candidates.all(one, !has(one.model.checkpoint) || one.model.checkpoint != 'All' || "
                "self.candidates.all(other, !other.name.startsWith(one.name + '-step-')))",
                "no candidate is named as a checkpoint of another (NAME-step-N)",
                "candidates",
            ),
            (
                "has(self.baseline) || has(self.candidates[0].model.fineTuneJobRef) || "
                "has(self.candidates[0].model.sweepRef)",
                "without a baseline, the first candidate must be a fineTuneJobRef or sweepRef, whose base model is the "
                "baseline then",
                "baseline",
            ),
            (
                "self.runId != oldSelf.runId || (self.candidates == oldSelf.candidates && has(self.baseline) == "
                "has(oldSelf.baseline) && (!has(self.baseline) || self.baseline == oldSelf.baseline) && self.dataset "
                "== oldSelf.dataset && self.graders == oldSelf.graders && self.generation == oldSelf.generation && "
                "self.benchmarks == oldSelf.benchmarks && "
                "self.onError == oldSelf.onError && self.maxErroredPercent == oldSelf.maxErroredPercent && "
                "has(self.budget) == has(oldSelf.budget) && (!has(self.budget) || self.budget == oldSelf.budget))",
                "changing what is measured starts a new run: change spec.runId too (gates may change at any time)",
            ),
            *SAFETY_RULES,
        )
    )

    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of Pods that share what loaded models are asked. May be changed; applies to the next try.",
    )
    benchmarks: list[Benchmark] = Field(
        default=[],
        max_length=MOST_BENCHMARKS,
        json_schema_extra=keyed_by("name"),
        description="Public tasks on which every model is measured too, for example to see what it has forgotten.",
    )
    gates: list[Gate] = Field(
        default=[],
        max_length=MOST_GATES,
        description="Thresholds that every candidate must reach (of checkpoints, the best). They may be changed during "
        "a run. Empty: none.",
    )
    safety: Safety | None = Field(None, description="Attacks on every model. Omitted: none.")
    safety_gates: list[SafetyGate] = Field(
        default=[],
        max_length=MOST_SAFETY_GATES,
        description="Rates that no candidate may exceed. They may be changed during a run, too.",
    )


class EvaluationStatus(RetriedRunStatus):
    """State and results of the evaluation."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_digest: Line | None = Field(
        None, description="Digest of what the run measures, which tells runs with the same runId apart."
    )
    progress: EvaluationProgress | None = None
    storage_uri: Line | None = Field(None, description="Folder with the reports and samples of this run.")
    dataset_revision: PinnedRevision | None = None
    candidate_digests: dict[str, Line] = Field(
        default={},
        max_length=MOST_CANDIDATES,
        description="Digest of the evaluated model, by candidate (NAME-step-N with checkpoint All).",
    )
    best_checkpoints: list[BestCheckpoint] = Field(
        default=[],
        max_length=MOST_CANDIDATES,
        json_schema_extra=keyed_by("candidate"),
        description="For each candidate with checkpoint All.",
    )
    results: list[Score] = Field(
        default=[], max_length=MOST_SCORES, description="Scores of every model from every grader and benchmark."
    )
    slices: list[SliceScore] = Field(
        default=[],
        max_length=MOST_SLICE_SCORES,
        description="Scores of the candidates on the slices that gates are about, then on the largest; report.json "
        "has all of them.",
    )
    gated_slices: list[GatedSliceStatus] = Field(
        default=[],
        max_length=MOST_GATES,
        description="Slices that gates were about when the run began. Omitted: none, or not known.",
    )
    errors: list[GradingErrors] = Field(
        default=[], max_length=20, description="What could not be graded; samples.jsonl has every output."
    )
    usage: list[ModelUsage] = Field(
        default=[],
        max_length=MOST_ASKED,
        json_schema_extra=keyed_by("model"),
        description="Usage of the class's models.",
    )
    outputs: list[OutputsStatus] = Field(
        default=[],
        max_length=MOST_MODELS,
        json_schema_extra=keyed_by("candidate"),
        description="Latency, tokens and cost of each model's outputs.",
    )
    calibrations: list[CalibrationStatus] = Field(
        default=[],
        max_length=MOST_GRADERS,
        json_schema_extra=keyed_by("grader"),
        description="How far the models that grade agree with people.",
    )
    safety: SafetyStatus | None = None
    warnings: list[Line] = Field(default=[], max_length=MOST_WARNINGS, description="What makes the scores doubtful.")
    gates: list[GateResult] = Field(
        default=[], max_length=MOST_CANDIDATES * MOST_GATES, description="Result of every gate for every candidate."
    )
    sent_report: SentReport | None = None
    summary: Line | None = Field(
        None, description="First candidate compared with the baseline by the first grader, for `kubectl get`."
    )
    report_uri: Line | None = Field(None, description="URI of the JSON report.")
