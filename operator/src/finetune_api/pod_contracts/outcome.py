"""A Pod's termination message: the source of truth about how it ended.

Kubernetes truncates a termination message at 4096 bytes: termination_message.py makes one that fits. The full report is
in the run's folder in the storage; sent_report.py has how a large one reaches the operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from finetune_api.base import REPORT, ApiModel, FiniteNumber, Line, Text
from finetune_api.conditions import Reason
from finetune_api.dataset import Revision
from finetune_api.evaluation import (
    MOST_ASKED,
    MOST_GATES,
    MOST_GRADERS,
    MOST_MODELS,
    MOST_SCORES,
    MOST_SLICE_SCORES,
    MOST_WARNINGS,
    CalibrationStatus,
    GatedSlice,
    GatedSliceStatus,
    GradingErrors,
    OutputsStatus,
    Score,
    SliceScore,
)
from finetune_api.evaluation.safety import MOST_SAFETY_SCORES, SafetyScore
from finetune_api.finetunejob import (
    CheckpointStatus,
    CorruptCheckpoint,
    DatasetFindings,
    MemoryEstimate,
    ModelStatus,
    Result,
    RewardCalibration,
)
from finetune_api.model_usage import ModelUsage

TERMINATION_MESSAGE_PATH = "/dev/termination-log"
PREFLIGHT_REPORT_NAME = "preflight.json"
"""The object in a run's folder with preflight's full report."""

EXIT_SUCCEEDED = 0
EXIT_FAILED = 1
EXIT_DISRUPTED = 143
"""128 + SIGTERM: the Pod was asked to stop; never counts against retryLimit."""


class Failure(ApiModel):
    """A diagnosis: what happened, where, and what to do."""

    outcome: Literal["Failed"] = "Failed"
    reason: Reason
    message: Text
    rank: int | None = None
    retryable: bool = Field(False, description="Whether a retry with the same spec may succeed.")
    suggestion: Line | None = Field(
        None, description="Which field of the spec or the class to change, and to which value."
    )
    log: Text | None = Field(None, description="Last lines of this process's log.")
    step: int | None = Field(None, description="For TrainingStalled: the step that this process was executing.")
    stopped: bool = Field(False, description="For TrainingStalled: this process was stopped (SIGSTOP).")
    lost_peer: bool = Field(
        False, description="It ended because another Pod of the attempt did, which reports the cause."
    )
    dataset: DatasetFindings | None = Field(None, description="For DatasetInvalid: the invalid lines.")

    @field_validator("reason", mode="before")
    @classmethod
    def _read_reason(cls, value: Any, info: ValidationInfo) -> Any:
        """Failed, for a reason that a trainer of another version reported: what it means is not known here."""
        is_unknown = isinstance(value, str) and value not in set(Reason)
        return Reason.FAILED if info.context is REPORT and is_unknown else value


class PreflightReport(ApiModel):
    """Everything that the run needs is available."""

    outcome: Literal["PreflightSucceeded"] = "PreflightSucceeded"
    dataset: DatasetFindings
    model: ModelStatus
    memory: MemoryEstimate | None = None
    calibration: RewardCalibration | None = None
    packing: bool | None = Field(None, description="Whether rows are packed, where the spec leaves that open.")


class DatasetReport(ApiModel):
    """The revision of a Dataset is committed."""

    outcome: Literal["DatasetSucceeded"] = "DatasetSucceeded"
    revision: Revision
    usage: list[ModelUsage] = Field(default=[], max_length=MOST_ASKED)


class TrainReport(ApiModel):
    """The run is complete and its result is committed."""

    outcome: Literal["TrainSucceeded"] = "TrainSucceeded"
    result: Result
    checkpoints: list[CheckpointStatus] = Field(default=[])
    corrupt_checkpoints: list[CorruptCheckpoint] = Field(default=[])
    checkpoint_seconds: FiniteNumber = Field(None, description="Longest time from the start of a save to its commit.")


_NAMES = {"candidate": "candidates", "grader": "graders"}
_COLUMNS = tuple(name for name in Score.model_fields if name not in _NAMES)
"""The columns of a score on the wire: new fields are added at the end, so that an older reader ignores them."""
_SLICE_NAMES = {"by": "by", "value": "values", **_NAMES}
_SLICE_COLUMNS = tuple(name for name in SliceScore.model_fields if name not in _SLICE_NAMES)
_CALIBRATION_NAMES = {"grader": "graders"}
_CALIBRATION_COLUMNS = tuple(name for name in CalibrationStatus.model_fields if name not in _CALIBRATION_NAMES)
_SAFETY_NAMES = {
    "candidate": "candidates",
    "measure": "measures",
    "category": "categories",
    "converter": "converters",
}
_SAFETY_COLUMNS = tuple(name for name in SafetyScore.model_fields if name not in _SAFETY_NAMES)
_GATED_NAMES = {"by": "by", "value": "values", "grader": "graders"}
_GATED_COLUMNS = tuple(name for name in GatedSliceStatus.model_fields if name not in _GATED_NAMES)


def _table(items: Sequence[ApiModel], names: Mapping[str, str], columns: Sequence[str]) -> dict[str, Any]:
    """Items as rows of numbers: each text of the fields in `names` is there once, and a row has its index.

    `columns`: the fields that follow, up to the last one that has a number.
    """
    texts = {field: list(dict.fromkeys(getattr(item, field) for item in items)) for field in names}
    rows = []
    for item in items:
        numbers = [getattr(item, column) for column in columns]
        while numbers[-1] is None:
            numbers.pop()
        rows.append([*(texts[field].index(getattr(item, field)) for field in names), *numbers])
    return {**{wire: texts[field] for field, wire in names.items()}, "rows": rows}


def _from_table(value: Any, names: Mapping[str, str], columns: Sequence[str]) -> Any:
    """What such a table says; a list of items is taken as it is. Raises ValueError."""
    if not isinstance(value, dict):
        return value
    try:
        return [
            {field: value[wire][index] for (field, wire), index in zip(names.items(), row, strict=False)}
            | {name: number for name, number in zip(columns, row[len(names) :], strict=False) if number is not None}
            for row in value["rows"]
        ]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("is not a table of scores") from error


class EvaluationReport(ApiModel):
    """Scores of every model from every grader.

    On the wire each name appears once and a score is a row of numbers, so that 32 of them fit into a termination
    message: {candidates: [...], graders: [...], rows: [[candidate's index, grader's index, score, low, ...], ...]}.
    """

    outcome: Literal["EvaluateSucceeded"] = "EvaluateSucceeded"
    scores: list[Score] = Field(max_length=MOST_SCORES)
    slices: list[SliceScore] = Field(default=[], max_length=MOST_SLICE_SCORES)
    gated_slices: list[GatedSliceStatus] | None = Field(None, max_length=MOST_GATES)
    errors: list[GradingErrors] = Field(default=[], max_length=20)
    usage: list[ModelUsage] = Field(default=[], max_length=MOST_ASKED)
    outputs: list[OutputsStatus] = Field(default=[], max_length=MOST_MODELS)
    calibrations: list[CalibrationStatus] = Field(default=[], max_length=MOST_GRADERS)
    safety: list[SafetyScore] | None = Field(None, max_length=MOST_SAFETY_SCORES)
    warnings: list[Line] = Field(default=[], max_length=MOST_WARNINGS)
    report_uri: Line | None = None
    sent_digest: Line | None = Field(
        None, description="Digest of the whole report, if the Pod has sent it before it ended (sent_report.py)."
    )

    @field_serializer("scores")
    def _write_scores(self, scores: list[Score]) -> dict[str, Any]:
        return _table(scores, _NAMES, _COLUMNS)

    @field_validator("scores", mode="before")
    @classmethod
    def _read_scores(cls, value: Any) -> Any:
        return _from_table(value, _NAMES, _COLUMNS)

    @field_serializer("slices")
    def _write_slices(self, slices: list[SliceScore]) -> dict[str, Any] | None:
        return _table(slices, _SLICE_NAMES, _SLICE_COLUMNS) if slices else None

    @field_validator("slices", mode="before")
    @classmethod
    def _read_slices(cls, value: Any) -> Any:
        return [] if value is None else _from_table(value, _SLICE_NAMES, _SLICE_COLUMNS)

    @field_serializer("calibrations")
    def _write_calibrations(self, calibrations: list[CalibrationStatus]) -> dict[str, Any] | None:
        return _table(calibrations, _CALIBRATION_NAMES, _CALIBRATION_COLUMNS) if calibrations else None

    @field_validator("calibrations", mode="before")
    @classmethod
    def _read_calibrations(cls, value: Any) -> Any:
        return [] if value is None else _from_table(value, _CALIBRATION_NAMES, _CALIBRATION_COLUMNS)

    @field_serializer("safety")
    def _write_safety(self, safety: list[SafetyScore] | None) -> dict[str, Any] | None:
        return None if safety is None else _table(safety, _SAFETY_NAMES, _SAFETY_COLUMNS)

    @field_validator("safety", mode="before")
    @classmethod
    def _read_safety(cls, value: Any) -> Any:
        return _from_table(value, _SAFETY_NAMES, _SAFETY_COLUMNS)

    @field_serializer("gated_slices")
    def _write_gated(self, gated: list[GatedSliceStatus] | None) -> dict[str, Any] | None:
        return None if gated is None else _table(gated, _GATED_NAMES, _GATED_COLUMNS)

    @field_validator("gated_slices", mode="before")
    @classmethod
    def _read_gated(cls, value: Any) -> Any:
        return _from_table(value, _GATED_NAMES, _GATED_COLUMNS)


def gated_by(score: SliceScore) -> GatedSlice:
    """What a gate that reads this score is about."""
    return GatedSlice(by=score.by, value=score.value, grader=score.grader)


def _outcome_of(value: Any) -> Any:
    """The tag that distinguishes the types of reports."""
    return value.get("outcome") if isinstance(value, dict) else getattr(value, "outcome", None)


Outcome = Annotated[
    Annotated[Failure, Tag("Failed")]
    | Annotated[PreflightReport, Tag("PreflightSucceeded")]
    | Annotated[DatasetReport, Tag("DatasetSucceeded")]
    | Annotated[TrainReport, Tag("TrainSucceeded")]
    | Annotated[EvaluationReport, Tag("EvaluateSucceeded")],
    Discriminator(_outcome_of),
]
AnyReport = Failure | PreflightReport | DatasetReport | TrainReport | EvaluationReport
_OUTCOME: TypeAdapter[AnyReport] = TypeAdapter(Outcome)


def parse_termination_message(
    message: str,
) -> AnyReport | None:
    """The outcome in a termination message; None if it contains something else (the end of a log, nothing).

    A trainer of another version may have written it: unknown fields are left out, and unknown enum values are kept.
    """
    try:
        return _OUTCOME.validate_json(message, extra="ignore", context=REPORT)
    except ValidationError:
        return None
