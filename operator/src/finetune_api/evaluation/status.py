"""status of an Evaluation: where its run stands, and what it measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune_api.base import Line
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.evaluation.benchmarks import MOST_BENCHMARKS
from finetune_api.evaluation.gates import MOST_GATES, GateResult
from finetune_api.evaluation.models import MOST_CANDIDATES
from finetune_api.evaluation.progress import EvaluationProgress
from finetune_api.evaluation.results import (
    BestCheckpoint,
    CalibrationStatus,
    GatedSliceStatus,
    GradingErrors,
    OutputsStatus,
    Score,
    SentReport,
    SliceScore,
)
from finetune_api.evaluation.safety import SafetyStatus
from finetune_api.evaluation.spec import MOST_GRADERS
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import RetriedRunStatus
from finetune_api.model_usage import ModelUsage

Phase = Literal[
    "Waiting", "Evaluating", "Retrying", "Suspended", "Passed", "GateFailed", "Inconclusive", "Failed", "Cancelled"
]
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
