"""Gates of an Evaluation: which scores its candidates must reach."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, Line, cel
from finetune_api.evaluation.results import SliceReference
from finetune_api.graders import ShortName
from finetune_api.unions import OneOf

MOST_GATES = 10


class Gate(OneOf):
    """A threshold that every candidate must reach, or must not exceed."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.decision) || self.decision != 'LowerBound' || has(self.minimum) || has(self.minimumDelta)",
                "decision LowerBound requires minimum or minimumDelta",
                "decision",
            ),
            (
                "!has(self.decision) || self.decision != 'UpperBound' || has(self.maximum) || has(self.maximumDelta)",
                "decision UpperBound requires maximum or maximumDelta",
                "decision",
            ),
            (
                "(has(self.decision) && self.decision == 'PointEstimate') || ((!has(self.minimum) || self.minimum <= "
                "0.9999) && (!has(self.minimumDelta) || self.minimumDelta <= 0.9999) && (!has(self.maximum) || "
                "self.maximum >= 0.0001) && (!has(self.maximumDelta) || self.maximumDelta >= -0.9999))",
                "the bound of an interval never comes nearer to the end of the scale than 0.0001, so this gate can't "
                "pass: demand less, or use decision PointEstimate",
                "decision",
            ),
            (
                "!has(self.calibration) || (has(self.minimum) && !has(self.slice))",
                "a gate on a calibration has a minimum and no slice",
                "calibration",
            ),
            (
                "has(self.grader) != has(self.benchmark)",
                "a gate is about either a grader or a benchmark",
                "grader",
            ),
            (
                "!has(self.benchmark) || (!has(self.slice) && !has(self.calibration))",
                "a gate on a benchmark has neither slice nor calibration",
                "benchmark",
            ),
        )
    )

    choices = ("minimum", "minimum_delta", "maximum", "maximum_delta")

    grader: ShortName | None = Field(None, description="Name of a grader in spec.graders.")
    benchmark: ShortName | None = Field(None, description="Name of a benchmark in spec.benchmarks.")
    slice: SliceReference | None = Field(
        None, description="Judge the scores of this slice. Omitted: those of all examples."
    )
    calibration: Literal["Agreement", "Kappa"] | None = Field(
        None,
        description="Judge the grader by its calibration, and no model's scores: by the share of outputs on which it "
        "agrees with people, or by Cohen's kappa.",
    )
    minimum: float | None = Field(None, gt=0, le=1, description="Minimum mean score; every model has at least 0.")
    minimum_delta: float | None = Field(
        None, gt=-1, le=1, description="Minimum gain over the baseline's mean score; every model has at least -1."
    )
    maximum: float | None = Field(None, ge=0, lt=1, description="Maximum mean score; no model has more than 1.")
    maximum_delta: float | None = Field(
        None, ge=-1, lt=1, description="Maximum gain over the baseline's mean score; no model has more than 1."
    )
    decision: Literal["LowerBound", "UpperBound", "PointEstimate"] | None = Field(
        None,
        description="What is compared with the threshold: a bound of the 95 % confidence interval, or the mean itself. "
        "With a bound the gate is Inconclusive while the interval includes the threshold. Omitted: LowerBound for a "
        "minimum, UpperBound for a maximum.",
    )

    @property
    def scored_by(self) -> str:
        """The grader or the benchmark whose scores it reads."""
        return self.grader or self.benchmark or ""


class GateResult(ApiModel):
    """Result of one gate for one candidate."""

    candidate: ShortName = Field(description="Name of the candidate.")
    grader: ShortName = Field(description="Name of the grader or benchmark.")
    slice: SliceReference | None = Field(None, description="Slice that the gate is about. Omitted: all examples.")
    calibration: Line | None = Field(None, description="Agreement or Kappa, for a gate on the grader's calibration.")
    verdict: Literal["Passed", "Failed", "Inconclusive"] = Field(
        "Inconclusive", description="Inconclusive: the examples are too few to tell, or spec.budget was used up."
    )
    message: Line = Field(description="The measured and required values.")
