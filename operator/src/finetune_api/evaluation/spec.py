"""spec of an Evaluation: which models are compared, on which data, by which graders and gates."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import LARGEST_SEED, MOST_EXAMPLES, ApiModel, Name, cel
from finetune_api.dataset_reference import DatasetRef
from finetune_api.evaluation.benchmarks import MOST_BENCHMARKS, Benchmark
from finetune_api.evaluation.gates import MOST_GATES, Gate
from finetune_api.evaluation.models import MOST_CANDIDATES, Baseline, Candidate
from finetune_api.evaluation.safety import MOST_SAFETY_GATES, SAFETY_RULES, Safety, SafetyGate
from finetune_api.graders import Grader, Template
from finetune_api.kubernetes_types import SET, keyed_by
from finetune_api.lifecycle import RunId, RunLimits, RunSpec
from finetune_api.model_usage import Budget
from finetune_api.sources import DatasetUri
from finetune_api.unions import OneOf

OnError = Literal["Zero", "Exclude", "Fail"]
Reducer = Literal["Mean", "Median", "Max", "Min", "Majority", "PassAtK", "PassK"]
MOST_GRADERS = 8


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
                "(!has(self.topP) && (!has(self.samplesPerExample) || self.samplesPerExample == 1)) || "
                "(has(self.temperature) && self.temperature > 0.0)",
                "topP and samplesPerExample need a temperature above 0: greedy outputs are all the same",
                "temperature",
            )
        )
    )

    max_tokens: int = Field(256, ge=1, le=32768, description="Maximum number of tokens per output.")
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature. 0: greedy.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling. Omitted: the model's own.")
    seed: int = Field(17, ge=0, le=LARGEST_SEED, description="Seed for sampling.")
    samples_per_example: int = Field(
        1, ge=1, le=100, description="Number of outputs per example. More than one requires a temperature."
    )
    reducer: Reducer = Field(
        "Mean",
        description="How the scores of an example's outputs become one: Mean, Median, Max or Min; Majority: 1 if more "
        "than half of them pass; PassAtK: 1 if any passes; PassK: 1 if all pass.",
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
