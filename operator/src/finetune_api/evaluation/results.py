"""What an evaluation measures: scores, what could not be graded, and what the outputs took."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, ValidationInfo, model_validator

from finetune_api.base import ANOTHER_VERSION, REPORT, ApiModel, FiniteNumber, Line, Name
from finetune_api.graders import ShortName, Template

SENT_REPORT_BYTES = 256 * 1024


class Score(ApiModel):
    """Mean score of one model from one grader or benchmark, with its 95 % confidence interval."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    grader: ShortName = Field(description="Name of the grader or benchmark.")
    score: float = Field(allow_inf_nan=False, description="Mean over all graded examples, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower bound of the confidence interval.")
    high: float = Field(allow_inf_nan=False, description="Upper bound of the confidence interval.")
    examples: int = Field(description="Number of examples that count.")
    passed: int | None = Field(None, description="Number of outputs that reached the grader's passThreshold.")
    failed: int | None = Field(None, description="Number of outputs that did not.")
    errored: int | None = Field(None, description="Number of outputs that could not be graded; see spec.onError.")
    delta: FiniteNumber = Field(None, description="Gain over the baseline on the same examples.")
    delta_low: FiniteNumber = Field(None, description="Lower bound of the gain's confidence interval.")
    delta_high: FiniteNumber = Field(None, description="Upper bound of the gain's confidence interval.")
    p_value: FiniteNumber = Field(
        None, description="Exact McNemar test of no difference from the baseline, if all scores are 0 or 1."
    )
    minimum_detectable_delta: FiniteNumber = Field(
        None, description="Smallest true gain that this number of examples detects with a power of 80 %."
    )
    over_budget: int | None = Field(
        None, description="Number of errored outputs that were not graded because spec.budget was used up."
    )


class BestCheckpoint(ApiModel):
    """The one with the best mean score; of equal ones, the earliest."""

    candidate: ShortName = Field(description="Name of the candidate in the spec.")
    step: int = Field(description="Step of the checkpoint.")
    checkpoint: Line = Field(description="Its name in the results.")
    grader: ShortName = Field(description="Grader of the first gate, or else the first.")
    score: float = Field(allow_inf_nan=False, description="Mean over the examples, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower bound of the 95 % confidence interval.")
    high: float = Field(allow_inf_nan=False, description="Upper bound of the confidence interval.")
    tied: list[int] | None = Field(
        None,
        max_length=8,
        description="Steps of those whose intervals overlap with its own.",
    )


class SliceScore(ApiModel):
    """Mean score of one candidate from one grader on the examples of a slice."""

    by: Line = Field(description="Template in spec.dataset.slices.")
    value: Line = Field(description="The text that it renders for these examples.")
    candidate: ShortName = Field(description="Name of the candidate.")
    grader: ShortName = Field(description="Name of the grader.")
    score: float = Field(allow_inf_nan=False, description="Mean over the examples, 0 to 1.")
    low: float = Field(allow_inf_nan=False, description="Lower bound of the 95 % confidence interval.")
    high: float = Field(allow_inf_nan=False, description="Upper bound of the confidence interval.")
    examples: int = Field(description="Number of examples that count.")
    delta: FiniteNumber = Field(None, description="Gain over the baseline on the same examples.")
    delta_low: FiniteNumber = Field(None, description="Lower bound of the gain's confidence interval.")
    delta_high: FiniteNumber = Field(None, description="Upper bound of the gain's confidence interval.")
    errored: int | None = Field(None, description="Number of the candidate's outputs that could not be graded.")
    baseline_errored: int | None = Field(
        None,
        description="Number of the baseline's outputs that could not be graded, though they lack nothing.",
    )
    over_budget: int | None = Field(
        None, description="Number of outputs of both that were not graded because spec.budget was used up."
    )


class SliceReference(ApiModel):
    """The examples for which a template of spec.dataset.slices renders one text."""

    by: Template = Field(description="One of spec.dataset.slices.")
    value: Line = Field(description="The text that it renders for these examples.")


class GatedSlice(SliceReference):
    """A slice that a gate is about, with the grader whose score the gate reads."""

    grader: ShortName = Field(description="Name of the grader.")


class GatedSliceStatus(GatedSlice):
    """What the run found of a slice that a gate was about when it began."""

    examples: int = Field(description="Number of the dataset's examples for which the template renders the text.")
    left_out: bool | None = Field(None, description="Whether the status had no room for a score; report.json has it.")

    @property
    def about(self) -> GatedSlice:
        """What a gate names, without what was found."""
        return GatedSlice(by=self.by, value=self.value, grader=self.grader)


class SentReport(ApiModel):
    """What the Pod has sent before its end. It counts once the Pod has ended with its digest."""

    job_name: Name = Field(description="Job of the Pod.")
    digest: Line = Field(description="Digest of the content.")
    content: str = Field(max_length=SENT_REPORT_BYTES, description="JSON with the scores.")


class GradingErrors(ApiModel):
    """Outputs of one model that one grader could not grade, for one reason."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    grader: ShortName = Field(description="Name of the grader.")
    code: Line = Field(description="OpenAI's error code, such as sample_parse_error or invalid_variable_error.")
    count: int = Field(description="Number of outputs.")
    first_line: int = Field(description="Line of the dataset for the first of them.")


class OutputsStatus(ApiModel):
    """What the outputs of one model took: time, tokens, money."""

    candidate: ShortName = Field(description="Name of the candidate, or `baseline`.")
    count: int = Field(description="Number of outputs.")
    prompt_tokens: int | None = Field(None, description="Number of tokens of the prompts, if known of every output.")
    completion_tokens: int | None = Field(None, description="Number of tokens of the outputs, if known of every one.")
    cost: FiniteNumber = Field(
        None,
        description="Cost of these tokens by the class's prices, whether they were paid for in this run or an earlier "
        "one.",
    )
    latency_milliseconds: int | None = Field(
        None,
        description="Median time until an output is complete, if it was measured at least 6 times. A model that is "
        "loaded in the Pod generates in batches; its times are those of the batches.",
    )
    latency_low_milliseconds: int | None = Field(
        None, description="Lower bound of the median's 95 % confidence interval."
    )
    latency_high_milliseconds: int | None = Field(None, description="Upper bound of the median's confidence interval.")
    measurements: int | None = Field(None, description="Number of measured times.")

    @model_validator(mode="before")
    @classmethod
    def _by_earlier_names(cls, value: Any, info: ValidationInfo) -> Any:
        """As statuses and trainers of before 27 November 2026 have it, with times in seconds."""
        if not isinstance(value, dict) or "outputs" not in value or info.context not in (ANOTHER_VERSION, REPORT):
            return value
        found = {name: content for name, content in value.items() if name not in _EARLIER_NAMES}
        for earlier, (name, factor) in _EARLIER_NAMES.items():
            if isinstance(number := value.get(earlier), int | float) and math.isfinite(number):
                found.setdefault(name, round(number * factor))
        return found


_EARLIER_NAMES = {
    "outputs": ("count", 1),
    "seconds": ("latencyMilliseconds", 1000),
    "secondsLow": ("latencyLowMilliseconds", 1000),
    "secondsHigh": ("latencyHighMilliseconds", 1000),
    "timed": ("measurements", 1),
}
"""Of OutputsStatus' fields: what they are now, and how many of the new unit the old one is."""


class CalibrationStatus(ApiModel):
    """How far a model that grades agrees with people on which outputs pass."""

    grader: ShortName = Field(description="Name of the grader.")
    examples: int = Field(description="Number of outputs that people have graded.")
    agreement: float = Field(allow_inf_nan=False, description="Share of them with the same verdict, 0 to 1.")
    agreement_low: float = Field(allow_inf_nan=False, description="Lower bound of its 95 % confidence interval.")
    agreement_high: float = Field(allow_inf_nan=False, description="Upper bound of its confidence interval.")
    kappa: float = Field(allow_inf_nan=False, description="Cohen's kappa: agreement beyond chance, -1 to 1.")
    kappa_low: float = Field(allow_inf_nan=False, description="Lower bound of its 95 % confidence interval.")
    kappa_high: float = Field(allow_inf_nan=False, description="Upper bound of its confidence interval.")
    errored: int | None = Field(
        None, description="Number of outputs that could not be graded; they count as the wrong verdict."
    )
    over_budget: int | None = Field(
        None, description="Number of these that were not graded because spec.budget was used up."
    )
